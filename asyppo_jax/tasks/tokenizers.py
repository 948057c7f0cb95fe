"""Tokenizers: loading them, their stop and padding tokens, and whether two are the same."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from asyppo_jax.config import ConfigError
from asyppo_jax.runtime.paths import local_directory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:
    Tokenizer = Any  # transformers takes two seconds to import: only load_tokenizer does


def tokenize(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token ids of a text as it stands: no special tokens are added."""
    # verbose=False: a length above the model's limit is our own check, not the library's log.
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def check_same_vocabulary(actor: Tokenizer, critic: Tokenizer) -> None:
    """Raises `ConfigError`, naming the first difference, where two tokenizers are not the same."""
    ours, theirs = actor.get_vocab(), critic.get_vocab()
    different = [t for t in sorted(ours.keys() | theirs.keys()) if ours.get(t) != theirs.get(t)]
    if different:
        token = different[0]
        raise ConfigError(
            f"config.critic.path has another tokenizer than config.actor.path: token {token!r} is "
            f"{ours.get(token, 'absent')} for the actor and {theirs.get(token, 'absent')} for the "
            f"critics ({len(different)} differ); take critics of the actor's family"
        )


def load_tokenizer(path: str) -> Tokenizer:
    """The tokenizer of a model directory or hub name, without PyTorch and without its advice.

    Raises:
      ConfigError: nothing is there, or what is there cannot be read.
    """
    # The import itself advises to install PyTorch, which this project does without.
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
    except Exception as error:  # the Rust library raises Exception itself on a torn file
        place = "directory" if is_directory else "hub name (no directory of that name is here)"
        raise ConfigError(
            f"no tokenizer can be loaded from the {place} {path!r} "
            f"({str(error).splitlines()[0]}); set config.actor.path to one with tokenizer.json"
        ) from error


def stop_token_ids(
    tokenizer: Tokenizer, path: str, stop_tokens: tuple[str, ...]
) -> tuple[int, ...]:
    """The ids that end a completion, each once.

    They are the tokenizer's end-of-sequence token, those of generation_config.json if `path` is a
    directory that has one (chat models end in one token, pretraining in another), and
    `stop_tokens`.

    Raises:
      ConfigError: a stop token that is not exactly one token, a generation_config.json that cannot
        be read, or nothing at all to stop at.
    """
    ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids += _generation_config_ids(local_directory(path) / "generation_config.json")
    for text in stop_tokens:
        found = tokenize(text, tokenizer)
        unknown = tokenizer.unk_token_id in found and text != tokenizer.unk_token
        if len(found) != 1 or unknown:
            pieces = [tokenizer.decode([one]) for one in found]
            raise ConfigError(
                f"config.sampling.stop_tokens has {text!r}, which is not one token of this "
                f"tokenizer but {len(found)}: {pieces}; choose a single token"
            )
        ids += found
    if not ids:
        raise ConfigError(
            "the tokenizer has no end-of-sequence token; name one in config.sampling.stop_tokens"
        )
    return tuple(dict.fromkeys(cast(list[int], ids)))


def _generation_config_ids(file: Path) -> list[int]:
    if not file.is_file():
        return []
    try:
        ids = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); mend or remove it") from error
    if ids is None:
        return []
    return list(ids) if isinstance(ids, list) else [ids]


def pad_token_id(tokenizer: Tokenizer) -> int:
    """The id written where nothing stands: the padding, else end-of-sequence token, else 0.

    Any id is right, because masks and not ids say which positions are real.
    """
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return cast(int, next(one for one in candidates if one is not None))
