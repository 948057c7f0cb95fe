"""Letters of values, and how expressions are put together."""

from fractions import Fraction

from asyppo_jax.tasks.answers.reading import read
from asyppo_jax.tasks.answers.values import Apply, Number, Symbol, negative, symbols, terms


def test_constants_are_no_letters():
    assert symbols(read(r"(a x + \pi, e^{i t})")) == {"a", "x", "t"}
    assert symbols(read("f(x)=2")) == {"x"}


def test_sums_and_products_are_flat():
    x, y = Symbol("x"), Symbol("y")
    assert terms("+", terms("+", x, y), x) == Apply("+", (x, y, x))
    assert terms("/", terms("/", x, y), x) == Apply("/", (Apply("/", (x, y)), x))
    assert negative(Number(Fraction(2), 3)) == Number(Fraction(-2), 3)
