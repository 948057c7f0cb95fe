"""Stop strings: the table finds a string in tokens exactly if a search finds it in their text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from asyppo_jax.config import ConfigError
from asyppo_jax.sampling.stops import holds_stop_string, make_stop_table, token_bytes

STOPS = ("aba", "abb", "é", "b</s")


def _tokenizer(pieces, byte_level=True):
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    if byte_level:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


# "é" is two bytes, which GPT-2's alphabet writes as Ã and ©; Ġ is a space.
TOKENIZER = _tokenizer(["a", "b", "ab", "bb", "Ġa", "Ã", "©", "</", "s>", "aabab"])


def test_the_bytes_of_a_token_are_those_of_its_text():
    expected = [b"a", b"b", b"ab", b"bb", b" a", b"\xc3", b"\xa9", b"</", b"s>", b"aabab", b""]
    assert token_bytes(TOKENIZER) == expected
    byte_fallback = _tokenizer(["a", "▁b", "<0xC3>", "<0xA9>"], byte_level=False)
    assert token_bytes(byte_fallback) == [b"a", b" b", b"\xc3", b"\xa9", b""]


@given(tokens=st.lists(st.integers(0, 10), min_size=1, max_size=8))
def test_a_string_is_found_at_the_token_that_completes_it(tokens):
    table, texts = make_stop_table(STOPS, TOKENIZER, 11), token_bytes(TOKENIZER)
    state = 0
    for n, token in enumerate(tokens):
        state = table[state, token]
        text = b"".join(texts[t] for t in tokens[: n + 1])
        assert (state == len(table) - 1) == any(s.encode() in text for s in STOPS)


def test_tokens_after_a_rows_length_do_not_count():
    table = make_stop_table(("aba",), TOKENIZER, 11)
    tokens = np.array([[0, 1, 0], [0, 1, 0], [9, 0, 0], [3, 3, 3]])
    has_stop = holds_stop_string(table, tokens, np.array([3, 2, 1, 3]))
    np.testing.assert_array_equal(has_stop, [True, False, True, False])


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ConfigError, match="stop_strings has an empty string"):
        make_stop_table(("a", ""), TOKENIZER, 11)


def test_rows_of_the_head_beyond_the_tokenizer_add_no_text():
    table = make_stop_table(("ab",), TOKENIZER, 40)
    assert table.shape == (3, 40)
    np.testing.assert_array_equal(table[:, 11:], np.repeat([[0], [1], [2]], 29, axis=1))
    tokens = np.array([[0, 39, 1], [39, 12, 39]])  # "a", nothing, "b"
    np.testing.assert_array_equal(holds_stop_string(table, tokens, np.array([3, 3])), [True, False])
