"""Stop strings inside the decoding program: a table from (state, token) to the next state.

A state says how much of which stop string the text so far ends with (Aho and Corasick, 1975), so
one look-up a token finds a string whatever tokens it is spread over. The text is bytes, because a
token may hold part of a character.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from asyppo_jax.config import ConfigError
from asyppo_jax.tasks.tokenizers import Tokenizer


def make_stop_table(
    stop_strings: Sequence[str], tokenizer: Tokenizer
) -> Int[np.ndarray, "states V"]:
    """The table of these strings: rows are states, 0 the first, and the last means "found".

    Once found, always found: the last row leads to itself.

    Raises:
      ConfigError: an empty string, which every text holds.
    """
    if "" in stop_strings:
        raise ConfigError(
            "config.sampling.stop_strings has an empty string, which every completion holds; "
            "remove it"
        )
    bytes_table = _byte_table([text.encode() for text in stop_strings])
    states, texts = np.arange(len(bytes_table), dtype=np.int32), token_bytes(tokenizer)
    table = np.empty((len(states), len(texts)), np.int32)
    for token, text in enumerate(texts):
        after = states
        for byte in text:
            after = bytes_table[after, byte]
        table[:, token] = after
    return table


def _byte_table(strings: Sequence[bytes]) -> Int[np.ndarray, "states 256"]:
    """The automaton over bytes; a state is the longest suffix that begins one of the strings."""
    prefixes = {text[:n] for text in strings for n in range(len(text))}
    states = {prefix: i for i, prefix in enumerate(sorted(prefixes, key=lambda p: (len(p), p)))}
    found = len(states)
    table = np.full((found + 1, 256), found, np.int32)
    for prefix, state in states.items():
        for byte in range(256):
            text = prefix + bytes([byte])
            if not any(text.endswith(string) for string in strings):
                table[state, byte] = next(
                    states[text[i:]] for i in range(len(text) + 1) if text[i:] in states
                )
    return table


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """What each token adds to a text; special tokens, which decoding leaves out, add nothing."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    backend: Any = tokenizer.backend_tokenizer  # the library's own type allows for anything
    decoder = json.loads(backend.to_str())["decoder"] or {}
    kinds = {one["type"] for one in [decoder, *decoder.get("decoders", [])] if "type" in one}
    of_letter = _byte_of_letter()
    added = {i: t.content for i, t in tokenizer.added_tokens_decoder.items()}
    special = set(tokenizer.all_special_ids)
    texts = []
    for token, piece in enumerate(pieces):
        if token in special or piece is None:
            texts.append(b"")
        elif token in added:
            texts.append(added[token].encode())
        elif "ByteLevel" in kinds:
            texts.append(bytes(of_letter[letter] for letter in piece))
        elif "ByteFallback" in kinds and len(piece) == 6 and piece.startswith("<0x"):
            texts.append(bytes([int(piece[3:5], 16)]))
        else:  # other vocabularies mark spaces, at most
            texts.append(piece.replace("\u2581", " ").encode())
    return texts


def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, others for 256, 257, …"""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


def holds_stop_string(
    table: Int[np.ndarray, "states V"],
    tokens: Int[np.ndarray, "B C"],
    lengths: Int[np.ndarray, " B"],
) -> Bool[np.ndarray, " B"]:
    """Which rows' first `lengths` tokens hold a stop string."""
    states = np.zeros(len(tokens), np.int32)
    for t in range(tokens.shape[1]):
        states = np.where(t < lengths, table[states, tokens[:, t]], states)
    return states == len(table) - 1
