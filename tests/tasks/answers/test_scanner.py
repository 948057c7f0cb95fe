"""Numbers in all their spellings, and what else tokens can be."""

from fractions import Fraction

import pytest

from asyppo_jax.tasks.answers.scanner import closing_brace, tokenize
from asyppo_jax.tasks.answers.tokens import Context, NotUnderstood


@pytest.mark.parametrize(
    ("text", "value", "digits"),
    [
        ("12,345", 12345, 0),
        ("12 345", 12345, 0),
        ("12{,}345", 12345, 0),
        ("3{,}5", Fraction(7, 2), 2),
        (".25", Fraction(1, 4), 2),
        ("2.50", Fraction(5, 2), 3),
        (r"0.1\overline{6}", Fraction(1, 6), 0),
        ("0.(3)", Fraction(1, 3), 0),
        ("0.333...", Fraction(1, 3), 0),
        ("2.5e-7", Fraction(25, 10**8), 2),
        (r"1.2\mathrm{e}{-3}", Fraction(12, 10**4), 2),
    ],
)
def test_a_number_has_one_value_in_each_spelling(text: str, value: Fraction, digits: int):
    (token,) = tokenize(text, Context())
    assert (token.kind, token.value, token.digits) == ("number", value, digits)


def kinds(text: str, **context) -> list[tuple[str, str]]:
    return [(token.kind, token.text) for token in tokenize(text, Context(**context))]


def test_the_context_decides_what_commas_letters_and_e_mean():
    assert len(kinds("1,200")) == 1 and len(kinds("1,200", comma_groups=False)) == 3
    assert len(kinds("(1,200)")) == 5  # two coordinates
    assert kinds("30 N", bare_units=True)[1] == ("word", "N")
    assert kinds("30 N")[1] == ("letter", "N")
    assert kinds("2e-1", powers_of_ten=False)[1] == ("letter", "e")
    assert len(kinds("abcd", letters=frozenset("abcd"))) == 4 and len(kinds("seat")) == 1


def test_numerals_and_times_are_tokens_of_their_own():
    assert kinds("41_7") == [("numeral", "41_7")] == kinds(r"41_{\text{seven}}")
    assert kinds("0x2F") == [("numeral", "2f_16")]
    assert kinds("5:25 p.m.") == [("clock", "5:25:p")]
    assert kinds("x_1")[0] == ("letter", "x")
    assert kinds("59_7")[0] == ("number", "59")  # 9 is no digit of base 7


def test_a_brace_finds_its_partner():
    assert closing_brace(r"{a\}{b}}c", 0) == 7
    with pytest.raises(NotUnderstood, match="nothing closes"):
        closing_brace("{a", 0)
