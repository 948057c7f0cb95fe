"""Every number among the settings has a range, outside of which it is refused in one sentence."""

import dataclasses
import math
import re
import typing
from typing import Any

import pytest

from asyppo_jax.config import Config, ConfigError
from asyppo_jax.config.ranges import RANGES, Range, check_fields, range_of
from asyppo_jax.tasks.benchmarks import BenchmarkSettings


def _classes(cls) -> list[type]:
    inner = [h for h in typing.get_type_hints(cls).values() if dataclasses.is_dataclass(h)]
    return list(dict.fromkeys([cls, *(c for h in inner for c in _classes(h))]))


CLASSES = [*_classes(Config), BenchmarkSettings]
FIELDS = [
    (cls, name, hint, range_of(cls, name))
    for cls in CLASSES
    for name, hint in typing.get_type_hints(cls).items()
]
RANGED = [(c, name, hint, allowed) for c, name, hint, allowed in FIELDS if allowed is not None]


def changed(cls, name, hint, value) -> Any:
    in_tuple = typing.get_origin(hint) is tuple
    return dataclasses.replace(cls(), **{name: (value,) if in_tuple else value})


def test_every_number_and_nothing_else_has_a_range():
    for _, name, hint, allowed in FIELDS:
        kinds = {hint, *(typing.get_args(hint) if typing.get_origin(hint) is not None else ())}
        kinds |= set(getattr(hint, "__args__", ()))
        if typing.get_origin(hint) is typing.Literal:
            kinds = set()
        assert bool(kinds & {int, float}) == (allowed is not None), name
    names = {c.__name__ for cls in CLASSES for c in cls.__mro__}
    assert RANGES.keys() <= names
    for cls in CLASSES:
        assert set(RANGES.get(cls.__name__, {})) <= {f.name for f in dataclasses.fields(cls)}


@pytest.mark.parametrize(
    ("cls", "name", "hint", "allowed"), RANGED, ids=[f"{c.__name__}.{n}" for c, n, _, _ in RANGED]
)
def test_what_is_outside_is_refused_with_setting_value_and_range(cls, name, hint, allowed):
    is_float = float in (hint, *typing.get_args(hint))
    senseless = [10**20, -(10**20)] + [math.nan, math.inf, -math.inf] * is_float
    ends = [allowed.low] * allowed.low_open + [allowed.high] * allowed.high_open
    below = (allowed.low - 1) if allowed.low - 1 != allowed.also else allowed.low - 2
    for value in [*senseless, *ends, below, allowed.high + 1]:
        text = rf"^x\.{name} (is|has) {re.escape(str(value))}; it must be .*"
        with pytest.raises(ConfigError, match=text + re.escape(str(allowed).split(" or ")[-1])):
            check_fields(changed(cls, name, hint, value), "x.")
    for value in [allowed.low] * (not allowed.low_open) + [allowed.high] * (not allowed.high_open):
        check_fields(changed(cls, name, hint, value))
    if allowed.also is not None:
        check_fields(changed(cls, name, hint, allowed.also))


def test_a_range_reads_as_an_interval():
    assert str(Range(0, 1, high_open=True)) == "[0, 1)"
    assert str(Range(1, 10**6, low_open=True, also=0)) == "0 or (1, 10^6]"
    assert str(Range(1e-6, 2**31 - 1)) == "[1e-06, 2147483647]"


@pytest.mark.parametrize(
    ("section", "field", "value", "sentence"),
    [
        ("sampling", "stop_tokens", (1,), "config.sampling.stop_tokens is 1; it must be a text"),
        ("sampling", "stop_tokens", "</s>", "stop_tokens is '</s>'; it must be a tuple"),
        ("sampling", "num_prompts", 2.5, "num_prompts is 2.5; it must be a whole number"),
        ("sampling", "num_prompts", True, "num_prompts is True; it must be a whole number"),
        ("sampling", "top_p", "0.9", "top_p is '0.9'; it must be a number"),
        ("sampling", "top_p", None, "top_p is None; it must be a number"),
        ("batching", "packing", 1, "packing is 1; it must be true or false"),
        ("actor", "path", 7, "config.actor.path is 7; it must be a text"),
        ("actor", "num_layers", "two", "num_layers is 'two'; it must be a whole number"),
        ("mesh", "zero_stage", True, "zero_stage is True; choose one of 3, 2, 1"),
    ],
)
def test_a_value_of_another_type_is_refused(section, field, value, sentence):
    config = Config()
    changes = {field: value}
    changed_section = dataclasses.replace(getattr(config, section), **changes)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_fields(dataclasses.replace(config, **{section: changed_section}), "config.")


def test_a_whole_number_is_a_number_and_the_defaults_are_allowed():
    check_fields(Config())
    check_fields(BenchmarkSettings(temperature=1, num_problems=None))
