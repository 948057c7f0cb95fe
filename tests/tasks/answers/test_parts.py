"""Parts that hold no other answer."""

import pytest

from asyppo_jax.tasks.answers import parts
from asyppo_jax.tasks.answers.scanner import tokenize
from asyppo_jax.tasks.answers.tokens import Context, NotUnderstood
from asyppo_jax.tasks.answers.units import PERCENT, UNITS
from asyppo_jax.tasks.answers.values import EMPTY, Clock, Listing, Numeral, Quantity, Symbol, Words


def tokens(text: str):
    return tokenize(text, Context())


def test_parts_are_split_outside_of_brackets():
    found, separators = parts.split(tokens("a,(b,c)"), lambda token: token.is_sign(","))
    assert [len(part) for part in found] == [1, 5] and len(separators) == 1
    with pytest.raises(NotUnderstood, match="partners"):
        parts.split(tokens("(a"), lambda token: False)
    assert [parts.nesting(token) for token in tokens("(a]")] == [1, 0, -1]


def test_brackets_and_braces():
    assert parts.is_pair(tokens("(a)(b)")[:3]) and not parts.is_pair(tokens("(a)(b)"))
    assert parts.bracket(tokens(r"\langle")[0]) == "(" and parts.bracket(tokens("a")[0]) is None
    assert len(parts.unbraced(tokens("{{a}}"))) == 1


def test_texts_and_single_values():
    assert parts.text_value(tokens(r"\text{no solution}")) == EMPTY
    assert parts.text_value(tokens(r"\text{(C)}")) == Words(("C",))
    assert parts.text_value(tokens("x")) is None
    assert parts.single_value(tokens("-41_7")) == Numeral("-41", "7")
    assert parts.single_value(tokens(r"41 \text{ base } 7")) == Numeral("41", "7")
    assert parts.single_value(tokens("5:25")) == Clock("5", "25", "")


def test_quantities_have_units_in_front_and_behind():
    assert parts.quantity(tokens(r"\$5")).unit == UNITS["dollar"]
    assert parts.quantity(tokens(r"5\%")).unit == PERCENT
    assert parts.quantity(tokens(r"5 \text{ km}")).unit == UNITS["km"]
    with pytest.raises(NotUnderstood, match="change the value"):
        parts.quantity(tokens(r"5 \text{ or more}"))


def test_plus_or_minus_is_two_values():
    both = parts.with_both_signs(parts.quantity(tokens(r"1 \pm x")))
    assert isinstance(both, Listing) and len(both.members) == 2
    assert parts.name_of(Quantity(Symbol("x"))) == "x" and parts.name_of(both) == ""
