"""The names of slices, and the errors for those that cannot be planned."""

import importlib.util

import pytest

from asyppo_jax.planning.topology import (
    CHIPS,
    TOPOLOGIES,
    PlanError,
    chip_of,
    num_chips,
    topology_devices,
)


def test_the_error_for_a_missing_compiler_has_the_install_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlanError, match=r"not installed; run `pip install -e '\.\[tpu\]'`"):
        topology_devices("v5p:2x2x1")


@pytest.mark.tpu
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler")
@pytest.mark.parametrize(
    ("name", "count"), [("v5e:1x1", 1), ("v6e:1x1", 1), ("v5p:1x1x1", 1), ("tpu7x:2x2x1", 8)]
)
def test_slices_of_one_chip_and_chips_of_two_devices_are_known(name, count):
    assert len(topology_devices(name)) == count
    assert num_chips(name) * chip_of(name).devices == count


def test_every_slice_that_a_message_names_is_one():
    for name in TOPOLOGIES:
        assert chip_of(name) is CHIPS[name.partition(":")[0]]
    assert [num_chips(name) for name in ("v5e:4x8", "v5p:2x2x4")] == [32, 16]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "v9z:2x2",
            r"'v9z:2x2' has an unknown kind of chip; give a chip and sizes, such as v5e:4x8",
        ),
        ("v5e:4x4x4", "3 dimensions, but slices of v5e have 2; name one such as v5e:8x8$"),
        ("v5p:2x2", "2 dimensions, but slices of v5p have 3; name one such as v5p:2x2x1$"),
        ("v6e:4", "1 dimension, but slices of v6e have 2; name one such as v6e:2x2$"),
        ("v5p:3x5", "slices of v5p have 3; name one such as v5p:2x2x1, v5p:2x2x2"),
        ("v5p", "'v5p' has no sizes; name a slice such as v5p:2x2x1"),
        ("v5e:2xtwo", "has no sizes; name a slice such as v5e:1x1"),
    ],
)
def test_a_name_that_is_no_slice_is_refused_with_one_that_is(name, sentence):
    with pytest.raises(PlanError, match=sentence):
        topology_devices(name)
