"""Stop strings in the decoding program: a table that maps (state, token) to the next state.

A state is the part of a stop string that the text ends with so far (Aho and Corasick, 1975). One
look-up per token finds a stop string, even if it is split over several tokens. The text is bytes,
because a token may hold a part of a character.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from asyppo_jax.config import ConfigError
from asyppo_jax.tasks.tokenizers import Tokenizer


def make_stop_table(
    stop_strings: Sequence[str], tokenizer: Tokenizer, rows: int
) -> Int[np.ndarray, "states V"]:
    """The table of the next state per state and token. Row 0 is the start, the last row is "found".

    The state "found" is never left: every token maps it to itself. `rows` is V, the rows of the
    head, which may be more than the tokenizer has tokens: those add no text.

    Raises:
      ConfigError: one of the strings is empty, so every text would contain it.
    """
    if "" in stop_strings:
        raise ConfigError(
            "config.sampling.stop_strings has an empty string, which every completion contains; "
            "remove it"
        )
    bytes_table = _byte_table([text.encode() for text in stop_strings])
    states, texts = np.arange(len(bytes_table), dtype=np.int32), token_bytes(tokenizer)
    table = np.repeat(states[:, None], rows, axis=1)
    for token, text in enumerate(texts):
        next_states = states
        for byte in text:
            next_states = bytes_table[next_states, byte]
        table[:, token] = next_states
    return table


def _byte_table(strings: Sequence[bytes]) -> Int[np.ndarray, "states 256"]:
    """The table of the next state per state and byte.

    A state is the longest suffix of the text that is a proper prefix of one of the strings.
    """
    prefixes = {text[:n] for text in strings for n in range(len(text))}
    states = {prefix: i for i, prefix in enumerate(sorted(prefixes, key=lambda p: (len(p), p)))}
    found_state = len(states)
    table = np.full((found_state + 1, 256), found_state, np.int32)
    for prefix, state in states.items():
        for byte in range(256):
            text = prefix + bytes([byte])
            if not any(text.endswith(string) for string in strings):
                table[state, byte] = next(
                    states[text[i:]] for i in range(len(text) + 1) if text[i:] in states
                )
    return table


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each token adds to a text; none for special tokens, which decoding skips."""
    count = max(tokenizer.get_vocab().values()) + 1  # ids may have gaps
    pieces = tokenizer.convert_ids_to_tokens(list(range(count)))
    backend: Any = tokenizer.backend_tokenizer  # Any, because the library's type is too general
    decoder = json.loads(backend.to_str())["decoder"] or {}
    decoders = [decoder, *decoder.get("decoders", [])]
    decoder_types = {entry["type"] for entry in decoders if "type" in entry}
    byte_of_letter = _byte_of_letter()
    added = {i: t.content for i, t in tokenizer.added_tokens_decoder.items()}
    special = set(tokenizer.all_special_ids)
    texts = []
    for token, piece in enumerate(pieces):
        if token in special or piece is None:
            texts.append(b"")
        elif token in added:
            texts.append(added[token].encode())
        elif "ByteLevel" in decoder_types:
            texts.append(bytes(byte_of_letter[letter] for letter in piece))
        elif "ByteFallback" in decoder_types and len(piece) == 6 and piece.startswith("<0x"):
            texts.append(bytes([int(piece[3:5], 16)]))
        else:  # other vocabularies are plain text, with a mark for spaces at most
            texts.append(piece.replace("\u2581", " ").encode())
    return texts


def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letter -> byte: a printable byte is its own letter, the others are 256, 257, …"""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


def holds_stop_string(
    table: Int[np.ndarray, "states V"],
    tokens: Int[np.ndarray, "B C"],
    lengths: Int[np.ndarray, " B"],
) -> Bool[np.ndarray, " B"]:
    """True for the rows whose first `lengths` tokens contain a stop string."""
    states = np.zeros(len(tokens), np.int32)
    for t in range(tokens.shape[1]):
        states = np.where(t < lengths, table[states, tokens[:, t]], states)
    return states == len(table) - 1


def cut_at_stop_string(
    table: Int[np.ndarray, "states V"], tokens: Int[np.ndarray, " C"]
) -> Int[np.ndarray, " n"]:
    """The tokens up to and including the one that completes a stop string; else all of them."""
    state = 0
    for t, token in enumerate(tokens):
        state = table[state, token]
        if state == len(table) - 1:
            return tokens[: t + 1]
    return tokens
