"""One value out of an answer."""

import pytest

from asyppo_jax.tasks.answers import quantities
from asyppo_jax.tasks.answers.reading import read
from asyppo_jax.tasks.answers.values import Clock, Numeral, Quantity


def quantity(text: str) -> Quantity:
    value = read(text)
    assert isinstance(value, Quantity)
    return value


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x", True),
        ("a+b", True),
        (r"\cos C", True),
        ("2x", False),
        ("x^2", False),
        ("5", False),
        (r"\pi", False),
    ],
)
def test_what_can_name_a_value(text: str, named: bool):
    assert quantities.is_name(quantity(text)) == named
    assert quantities.is_formula(quantity(text)) == (text in ("a+b", "2x", "x^2"))


def test_functions_and_choices():
    assert quantities.is_call(quantity("f(x)")) and not quantities.is_call(quantity("x"))
    assert (
        quantities.choice_letter(read(r"\text{(C)}")) == "C"
        and quantities.choice_letter(read("5")) == ""
    )


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("7", "x = 3 + 4 = 7", True),
        ("7", "8 = 7", False),
        ("7", "7 = x", True),
        (r"45\%", "0.45", True),
        ("0.45", r"4.5\%", False),
        (r"3 \text{ km}", r"3000 \text{ m}", True),
        (r"3 \text{ km}", r"3 \text{ m}", False),
        (r"\log 2", r"\log_{10} 2", True),
        (r"\log 2", "0.301030", False),
        ("7", "7, 8", False),
    ],
)
def test_equal_quantities(reference: str, answer: str, same: bool):
    assert quantities.equal_quantity(quantity(reference), read(answer)) == same


def test_numerals_and_clocks_are_compared_as_written():
    assert quantities.equal_numeral(Numeral("41", "7"), read("41"))
    assert not quantities.equal_numeral(Numeral("41", "7"), read("41_8"))
    assert quantities.equal_clock(Clock("5", "25", "p"), read("5:25"))
    assert not quantities.equal_clock(Clock("5", "25", "p"), read("5:25 a.m."))
