"""Values at points, and equality by them."""

from fractions import Fraction

import pytest

from asyppo_jax.tasks.answers import numeric
from asyppo_jax.tasks.answers.reading import read
from asyppo_jax.tasks.answers.values import Quantity


def expression(text: str):
    value = read(text)
    assert isinstance(value, Quantity)
    return value.expression


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (r"\sqrt{2}\sqrt{3}", r"\sqrt{6}", True),
        (r"\sqrt{2}", r"\sqrt{2}+10^{-40}", False),
        (r"(x+1)^2", "x^2+2x+1", True),
        (r"\sqrt{x^2}", "x", False),
        (r"\sin^2 t + \cos^2 t", "1", True),
        (r"e^{i\pi}", "-1", True),
        (r"\infty", "5", False),
        ("n!", "n(n-1)!", True),
    ],
)
def test_equal_values_at_all_points(a: str, b: str, same: bool):
    assert numeric.equal_by_value(expression(a), expression(b)) == same


def test_values_that_are_too_large_or_unknown_have_no_value():
    for text in ("9^{9^{9^9}}", r"\sin(10^{1000})", r"\det(x)"):
        with pytest.raises(numeric.NoValue):
            numeric.equal_by_value(expression(text), expression(r"\pi"))
    assert not numeric.is_moderate(expression("9^{9^{9^9}}")) and numeric.is_moderate(
        expression("x+1")
    )


def test_proportional_gives_the_sign_of_the_factor():
    assert numeric.proportional(expression("x-1"), expression("2x-2")) == 1
    assert numeric.proportional(expression("x-1"), expression("1-x")) == -1
    assert numeric.proportional(expression("x-1"), expression("x-2")) == 0


def test_real_values():
    assert numeric.real_value(expression(r"\sqrt{4}")) == 2
    assert (
        numeric.real_value(expression("i")) is None and numeric.real_value(expression("x")) is None
    )
    third = numeric.real_fraction(expression(r"\frac{1}{3}"))
    assert third is not None and abs(third - Fraction(1, 3)) < Fraction(1, 10**25)
    assert numeric.letters(expression(r"\pi r^2")) == {"r"}
