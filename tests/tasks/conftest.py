"""The tokenizer that prompts and tokenizers are tested with."""

import pytest

from tests.character_tokenizer import character_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer()
