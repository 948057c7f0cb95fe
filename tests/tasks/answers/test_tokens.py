"""Questions that a token answers."""

from asyppo_jax.tasks.answers.tokens import Token


def test_a_token_knows_its_kind_and_text():
    assert Token("sign", "+").is_sign("+", "-") and not Token("word", "+").is_sign("+")
    assert Token("command", "le").is_command("le") and not Token("command", "le").is_command("ge")
    assert Token("word", "Or").is_word("or") and not Token("letter", "or").is_word("or")
