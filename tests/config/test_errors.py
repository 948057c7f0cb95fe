"""Which name a message proposes."""

import pytest

from asyppo_jax.config.errors import did_you_mean


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("temp", "did you mean temperature?"),  # too short for the distance of difflib
        ("temprature", "did you mean temperature?"),
        ("top_", "did you mean top_k?"),
        ("t", "see the list"),
        ("seed", "see the list"),
    ],
)
def test_the_nearest_name_is_proposed_and_none_if_none_is_near(name, sentence):
    assert did_you_mean(name, ["top_k", "temperature"], "see the list") == sentence
