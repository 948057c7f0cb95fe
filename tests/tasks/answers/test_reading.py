"""What a text is."""

import pytest

from asyppo_jax.tasks.answers.reading import plain, read
from asyppo_jax.tasks.answers.tokens import Context, NotUnderstood
from asyppo_jax.tasks.answers.values import (
    EMPTY,
    Bracket,
    Chain,
    Combined,
    Dotted,
    Listing,
    Matrix,
    Quantity,
    Words,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("5", Quantity),
        ("x = 5", Chain),
        ("4, 7", Listing),
        (r"\{4, 7\}", Listing),
        ("(4, 7)", Bracket),
        ("1, 2, \\ldots, 9", Dotted),
        (r"(0,1) \cup (2,3)", Combined),
        (r"x < 1 \text{ or } x > 4", Combined),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", Matrix),
        (r"\text{east}", Words),
        (r"\{x \mid x > 3\}", Chain),
    ],
)
def test_a_text_has_the_type_of_its_notation(text: str, kind: type):
    assert isinstance(read(text), kind)


def test_words_around_a_value():
    assert read(r"\text{The answer is } 9") == read("9")
    assert read(r"a x, \text{ where } a \text{ is odd}") == read("a x")
    assert read("\\emptyset") == EMPTY == read(r"\{\}")
    for text in (r"\text{not } 9", r"\text{at least } 9", "> 9", "5 = ", "", "((1)"):
        with pytest.raises(NotUnderstood):
            read(text)
    with pytest.raises(NotUnderstood):
        read(r"9 \text{ if } x > 0", Context(bare_units=True))


def test_a_name_belongs_to_the_list_behind_it():
    named = read("m = 2, 6, 9")
    assert isinstance(named, Listing) and named.name == "m" and len(named.members) == 3


def test_plain_texts_differ_only_where_meanings_may():
    assert plain(r"\frac{ 1 }{ 2 } ") == plain(r"\dfrac12") and plain("x^{2}") == plain("x^2")
    assert plain("x^2") != plain("x^3")
    assert plain("\\\\text{") != plain("")
