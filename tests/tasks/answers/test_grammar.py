"""Expressions from tokens."""

from fractions import Fraction

import pytest

from asyppo_jax.tasks.answers.arithmetic import exact
from asyppo_jax.tasks.answers.grammar import Calculus, parse
from asyppo_jax.tasks.answers.scanner import tokenize
from asyppo_jax.tasks.answers.tokens import Context, NotUnderstood
from asyppo_jax.tasks.answers.values import Apply, Number, Symbol


def parsed(text: str):
    return parse(tokenize(text, Context()))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14),
        ("-2^2", -4),
        ("1/2/2", Fraction(1, 4)),
        (r"2\frac{3}{5}", Fraction(13, 5)),
        ("2 3/4", Fraction(11, 4)),
        (r"2\frac{6}{5}", Fraction(12, 5)),  # a product, because the fraction is improper
        (r"|3-5| \cdot -2", -4),
        (r"\lfloor 7/2 \rfloor + 3!", 9),
        (r"\binom{7}{3}", 35),
        (r"\sqrt[3]{27}", 3),
        ("50%", Fraction(1, 2)),
        (r"2^{-3}", Fraction(1, 8)),
    ],
)
def test_an_expression_has_the_value_of_its_operators(text: str, value: Fraction):
    assert exact(parsed(text)) == value


def test_functions_take_what_stands_beside_them():
    x = Symbol("x")
    two = Number(Fraction(2))
    assert parsed(r"\sin 2x") == Apply("sin", (Apply("*", (two, x)),))
    assert parsed(r"\sin^2 x") == Apply("^", (Apply("sin", (x,)), two))
    assert parsed(r"\sin^{-1} x") == Apply("arcsin", (x,))
    assert parsed(r"\log_2 x") == Apply("log", (x, two))
    assert parsed("f(x)") == Apply("call f", (x,)) == parsed("f(x)")
    assert parsed("a(x)") == Apply("*", (Symbol("a"), x))


@pytest.mark.parametrize(
    "text", ["", "2 3", "(1", "x2", "+", r"\frac{1}", "a = b", "(" * 100 + "1"]
)
def test_what_is_no_expression_is_refused(text: str):
    with pytest.raises(NotUnderstood):
        parsed(text)


def test_calculus_is_told_apart():
    with pytest.raises(Calculus):
        parsed(r"\int_0^1 x dx")
