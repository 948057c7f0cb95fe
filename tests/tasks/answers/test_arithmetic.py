"""Exact values, and decimals that stand for them."""

from fractions import Fraction

import pytest

from asyppo_jax.tasks.answers.arithmetic import equal, exact
from asyppo_jax.tasks.answers.numeric import NoValue
from asyppo_jax.tasks.answers.reading import read
from asyppo_jax.tasks.answers.values import Quantity


def expression(text: str):
    value = read(text)
    assert isinstance(value, Quantity)
    return value.expression


def test_rational_expressions_are_exact():
    assert exact(expression(r"\frac{3^{200}+1}{3^{200}}")) == 1 + Fraction(1, 3**200)
    assert exact(expression("8^{2/3}")) == 4 and exact(expression(r"\sqrt{2}")) is None
    assert exact(expression("x")) is None and exact(expression("2^{10^9}")) is None
    with pytest.raises(NoValue, match="division by zero"):
        exact(expression(r"\frac{1}{0}"))


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        (r"\frac{1}{3}", "0.333333", True),
        (r"\frac{1}{3}", "0.33333", False),
        (r"\frac{1}{3}", "0.333334", False),
        (r"\pi", "3.141593", True),
        (r"\pi", "3.14", False),
        (r"\frac{1}{3000}", "0.000333", False),
        (r"\frac{1}{3000}", "0.000333333", True),
        ("0.5", "0.500001", False),
        ("0.3", "0.30000000000000004", True),
        ("10^{-18}", "10^{-19}", False),
        ("0", "10^{-30}", False),
    ],
)
def test_a_decimal_stands_for_what_it_rounds(reference: str, answer: str, same: bool):
    assert equal(expression(reference), expression(answer)) == same
