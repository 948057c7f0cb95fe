"""The tokenizer for the tests of prompts and tokenizers."""

import pytest

from tests.character_tokenizer import character_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer()
