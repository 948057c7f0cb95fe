"""The names of gcloud for slices: their chips, their shapes, and the names that are none."""

import pytest

from asyppo_jax.planning.accelerators import AcceleratorError, chips_of_type, slice_name
from asyppo_jax.planning.topology import CHIPS, num_chips


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("v5p-8", "v5p:2x2x1"),
        ("v5p-32", "v5p:2x2x4"),
        ("v5p-1024", "v5p:8x8x8"),
        ("v5litepod-16", "v5e:4x4"),
        ("v6e-32", "v6e:4x8"),
    ],
)
def test_a_type_is_a_slice_of_as_many_chips(name, shape):
    assert slice_name(name) == shape and shape.partition(":")[0] in CHIPS
    assert chips_of_type(name) == num_chips(shape)


def test_the_compilers_names_stay():
    assert slice_name("v5p:2x2x4") == "v5p:2x2x4" and slice_name("v5p") == "v5p"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v5p-33", "'v5p-33' is no accelerator type; v5p has v5p-8, v5p-16, v5p-32, .* larger"),
        ("v5p-6", "v5p has v5p-8"),
        ("v5p-x", "v5p has v5p-8"),
        ("v5litepod-12", "v5litepod has v5litepod-1, v5litepod-4, .* v5litepod-256$"),
        ("v6e-512", "v6e has v6e-1, "),
        ("v5e-16", "'v5e-16' is called v5litepod-16"),
        ("v6p-32", "'v6p-32' is no accelerator type that is known here; give one of v5litepod-N"),
    ],
)
def test_a_name_that_is_no_type_is_refused_with_those_that_are(name, sentence):
    for read in (chips_of_type, slice_name):
        with pytest.raises(AcceleratorError, match=sentence):
            read(name)


def test_a_shape_in_place_of_a_type_is_refused_with_the_type():
    for shape, name in (("v5p:2x2x2", "v5p-16"), ("v5e:4x4", "v5litepod-16"), ("v6e:2x4", "v6e-8")):
        with pytest.raises(AcceleratorError, match=f"'{shape}' is a shape; .* type is {name}"):
            chips_of_type(shape)


def test_a_type_with_several_shapes_has_chips_but_no_shape():
    assert chips_of_type("v5p-384") == 192
    with pytest.raises(AcceleratorError, match=r"192 chips, .* such as v5p:4x4x12"):
        slice_name("v5p-384")
