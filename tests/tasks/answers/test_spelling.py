"""Spellings without a meaning of their own."""

import pytest

from asyppo_jax.tasks.answers.spelling import clean, strip_marks


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (r"\textcolor{red}{5}", "{5}"),
        (r"\left( 1,\,2 \right)", "( 1, 2 )"),
        (r"$5$", "5"),
        (r"$2,350", r"\$2,350"),
        (r"1,\!000", "1{,}000"),
        ("90°", r"90^{\circ}"),
        ("x²", "x^{2}"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"1 \\ 2", r"1 \\ 2"),  # a line break is no space
        ("**8**", "8"),
    ],
)
def test_marks_without_a_meaning_are_removed(text: str, cleaned: str):
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "stripped"), [("5.", "5"), ("5\\text{.}", "5"), ("1, ...", "1, ...")]
)
def test_final_punctuation_is_removed_but_dots_stay(text: str, stripped: str):
    assert strip_marks(text) == stripped
