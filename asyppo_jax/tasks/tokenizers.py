"""Tokenizers: loading, stop and padding tokens, and the check that two are the same."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from asyppo_jax.config import ConfigError
from asyppo_jax.runtime.paths import local_directory, resolve_directory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Tokenizer = Any  # importing transformers takes two seconds, so only load_tokenizer does it


def tokenize(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token ids of a text, without added special tokens."""
    # verbose=False: this project checks lengths itself; the library would log a warning.
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def unknown_pieces(text: str, tokens: Sequence[int], tokenizer: Tokenizer) -> tuple[str, ...]:
    """The pieces of a text that became the tokenizer's unknown token, each once; often none.

    `tokens` are those of the text. A tokenizer written in Python does not say which pieces.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in tokens or not tokenizer.is_fast:
        return ()
    encoded = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    pieces = dict.fromkeys(text[start:end] for token, (start, end) in pairs if token == unknown)
    # Some models call their end token unknown, too: it may be in a template.
    return tuple(piece for piece in pieces if piece != tokenizer.unk_token)


def decode_with_unknown(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of tokens without special tokens, except for the unknown token."""
    unknown, pieces, start = tokenizer.unk_token_id, [], 0
    if unknown == tokenizer.eos_token_id:
        unknown = None
    for at in [i for i, token in enumerate(tokens) if token == unknown] + [len(tokens)]:
        pieces.append(str(tokenizer.decode(tokens[start:at], skip_special_tokens=True)))
        start = at + 1
    return str(tokenizer.unk_token).join(pieces)


def check_same_vocabulary(actor: Tokenizer, critic: Tokenizer) -> None:
    """Raises `ConfigError` with the first difference if two tokenizers differ in vocabulary."""
    actor_ids, critic_ids = actor.get_vocab(), critic.get_vocab()
    tokens = sorted(actor_ids.keys() | critic_ids.keys())
    different = [token for token in tokens if actor_ids.get(token) != critic_ids.get(token)]
    if different:
        token = different[0]
        raise ConfigError(
            f"config.critic.path has another tokenizer than config.actor.path: token {token!r} is "
            f"{actor_ids.get(token, 'absent')} for the actor and "
            f"{critic_ids.get(token, 'absent')} for the critics ({len(different)} differ); use "
            "critics of the actor's model family"
        )


def load_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a model directory or hub name, loaded without PyTorch.

    Raises:
      ConfigError: there is no tokenizer, or it cannot be read.
    """
    # Without this, the import prints advice to install PyTorch, which this project does not need.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    directory = local_directory(path)
    is_directory = bool(path) and directory.is_dir()  # Path("") is the working directory
    looks_like_path = not path or path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_like_path and not is_directory:
        raise ConfigError(
            f"there is no model directory {path!r}; set config.actor.path to a directory with "
            "tokenizer.json, or to a hub name"
        )
    try:
        return AutoTokenizer.from_pretrained(
            str(directory), local_files_only=is_directory, trust_remote_code=False
        )
    except Exception as error:  # the Rust library raises a bare Exception for a truncated file
        reason = " ".join(str(error).split()) or type(error).__name__
        source = "directory" if is_directory else "hub name (there is no directory of that name)"
        raise ConfigError(
            f"no tokenizer can be loaded from the {source} {path!r} "
            f"({reason:.200}); set config.actor.path to one with tokenizer.json"
        ) from error


def stop_token_ids(
    tokenizer: Tokenizer, path: str, stop_tokens: tuple[str, ...]
) -> tuple[int, ...]:
    """The token ids that end a completion, each once.

    They are the tokenizer's end-of-sequence token, those that a file of the model `path` (a
    directory or a hub name) lists (chat models often end with another token than base models), and
    `stop_tokens`.

    Raises:
      ConfigError: a stop token is not exactly one token, a file cannot be read, or there is no stop
        token.
      ModelError: there is no such model.
    """
    ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    directory = resolve_directory(path)
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        ids += _end_ids(directory / name)
    for text in stop_tokens:
        text_ids = tokenize(text, tokenizer)
        unknown = tokenizer.unk_token_id in text_ids and text != tokenizer.unk_token
        if len(text_ids) != 1 or unknown:
            pieces = [tokenizer.decode([token]) for token in text_ids]
            raise ConfigError(
                f"config.sampling.stop_tokens has {text!r}, which is not one token of this "
                f"tokenizer but {len(text_ids)}: {pieces}; choose a single token"
            )
        ids += text_ids
    if not ids:
        raise ConfigError(
            "the tokenizer has no end-of-sequence token; set one in config.sampling.stop_tokens"
        )
    return tuple(dict.fromkeys(cast(list[int], ids)))


def _end_ids(file: Path) -> list[int]:
    """The field eos_token_id of a JSON file: one id, a list of ids, or nothing."""
    if not file.is_file():
        return []
    try:
        value = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); fix or remove it") from error
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ConfigError(
                f"{file}: eos_token_id is {value!r:.60}; it must be a token id or a list of them"
            )
    return ids


def check_rows(tokenizer: Tokenizer, rows: int, path: str) -> None:
    """Raises `ConfigError` if a token of the model `path` has no row in its embedding."""
    token, token_id = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if token_id >= rows:
        raise ConfigError(
            f"token {token!r} of the tokenizer in {path} has the id {token_id}, but the model's "
            f"embedding has {rows} rows; add rows to the embedding, or remove the token"
        )


def special_ids(
    tokenizer: Tokenizer, path: str, stop_tokens: tuple[str, ...], rows: int
) -> tuple[tuple[int, ...], int]:
    """`stop_token_ids` and `pad_token_id`, all of which have one of the embedding's rows.

    Raises:
      ConfigError: see `stop_token_ids`; or a token has no row.
    """
    check_rows(tokenizer, rows, path)
    stop_ids, pad_id = stop_token_ids(tokenizer, path, stop_tokens), pad_token_id(tokenizer)
    if max(stop_ids) >= rows:
        raise ConfigError(
            f"the end token {max(stop_ids)} of {path} (eos_token_id) has no row in the model's "
            f"embedding, which has {rows}; correct it in generation_config.json and config.json"
        )
    return stop_ids, pad_id


def pad_token_id(tokenizer: Tokenizer) -> int:
    """The id for padded positions: the padding token, else the end-of-sequence token, else 0.

    Any id works, because masks, not ids, mark the real positions.
    """
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return cast(int, next(token for token in candidates if token is not None))
