"""Units: their sizes, their powers, and words that are none."""

from fractions import Fraction

import pytest

from asyppo_jax.tasks.answers.scanner import tokenize
from asyppo_jax.tasks.answers.tokens import Context
from asyppo_jax.tasks.answers.units import (
    DEGREE,
    NO_UNIT,
    UNITS,
    find_unit,
    is_unit,
    ratio,
    read_unit,
)


def unit_of(text: str):
    return read_unit(tokenize(rf"\text{{{text}}}", Context(bare_units=True)))


def test_names_have_plurals_and_abbreviations_keep_their_case():
    assert find_unit("hours") == find_unit("hr") == UNITS["hour"]
    assert is_unit("N") and not is_unit("n") and not is_unit("apples")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("km/h", Fraction(1000, 3600)),
        ("square cm", Fraction(1, 10**4)),
        ("m^2", Fraction(1)),
        ("miles per hour", UNITS["mph"].size),
    ],
)
def test_a_phrase_of_units_has_a_size(text: str, size: Fraction):
    unit = unit_of(text)
    assert unit is not None and unit.size == size


def test_other_nouns_are_ignored_but_words_that_change_the_value_are_not():
    assert unit_of("apples") is None
    for words in ("or more", "at least", "times two", "is wrong", "squared"):
        with pytest.raises(ValueError, match="behind"):
            unit_of(words)


def test_the_ratio_converts_units_of_one_quantity_only():
    assert ratio(UNITS["km"], UNITS["m"]) == Fraction(1, 1000)
    assert ratio(UNITS["km"], UNITS["kg"]) is None
    assert ratio(None, UNITS["km"]) == 1 == ratio(DEGREE, UNITS["celsius"])
    assert UNITS["m"].times(UNITS["m"], -1) == NO_UNIT
