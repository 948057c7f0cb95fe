"""Steps through tokens."""

import pytest

from asyppo_jax.tasks.answers.cursor import Cursor
from asyppo_jax.tasks.answers.scanner import tokenize
from asyppo_jax.tasks.answers.tokens import Context, NotUnderstood


def cursor(text: str) -> Cursor:
    return Cursor(tokenize(text, Context()))


def test_a_cursor_takes_what_is_there():
    steps = cursor("+x")
    assert not steps.take("-") and steps.take("+")
    assert steps.next().text == "x" and steps.token is None
    with pytest.raises(NotUnderstood, match="too early"):
        steps.next()
    with pytest.raises(NotUnderstood, match="missing"):
        steps.expect(")")


def test_names_have_indices_and_primes():
    assert cursor(r"_{max}'").index() == "_max'"
    assert cursor(r"^{\prime}").index() == "'" and cursor("^2").index() == ""
    assert cursor("ABC + 1").shape() == "ABC"
