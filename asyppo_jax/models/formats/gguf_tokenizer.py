"""Rebuilds the byte-level BPE tokenizer that is stored in a GGUF file.

transformers can do this too, but (as of version 5.23) only if PyTorch is installed. A GGUF file
stores only the name of its pretokenizer, the rule that splits text before the merges. The table
`_PRETOKENIZERS` has the rules.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from asyppo_jax.models.config import ModelError

# Token types of the GGUF specification.
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5

# Tokens with which a model ends its message or text. GGUF metadata name only one of them.
_STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")


@dataclass(frozen=True)
class _Pretokenizer:
    """How text is split before the merges, for one value of `tokenizer.ggml.pre`."""

    pattern: str = ""  # empty: GPT-2's pattern
    single_digits: bool = False
    nfc: bool = False  # normalise to Unicode NFC first
    ignore_merges: bool = False  # do not merge within a piece that is itself a token
    add_bos: bool = False  # used if the file has no add_bos_token


def _pattern(digits: str) -> str:
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_PRETOKENIZERS = {
    "gpt-2": _Pretokenizer(),
    "smollm": _Pretokenizer(single_digits=True),
    "qwen2": _Pretokenizer(pattern=_pattern(r"\p{N}"), nfc=True),  # Qwen2, Qwen2.5 and Qwen3
    "llama-bpe": _Pretokenizer(pattern=_pattern(r"\p{N}{1,3}"), ignore_merges=True, add_bos=True),
}


def tokenizer_from_gguf(metadata: dict[str, Any], path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer with its special tokens and chat template; `path` names the file in errors.

    Tokens of type "unused" are omitted: they only pad the vocabulary to the embedding's rows.

    Raises:
        ModelError: the file has no tokenizer, or its kind is not supported.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise ModelError(
            f"{path}: tokenizer {model!r} is not supported; only byte-level BPE ('gpt2') is"
        )
    pre = metadata.get("tokenizer.ggml.pre")
    if not isinstance(pre, str) or pre not in _PRETOKENIZERS:
        raise ModelError(
            f"{path}: tokenizer.ggml.pre {pre!r} is not supported; "
            f"it must be one of {', '.join(_PRETOKENIZERS)}"
        )
    _check_lists(metadata, path)
    rule = _PRETOKENIZERS[pre]
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    special_ids = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token_id = read_token_id(metadata, key, path)
        if token_id is not None:
            special_ids[f"{name}_token"] = tokens[token_id]
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", rule.add_bos)
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise ModelError(f"{path}: tokenizer.chat_template is {template!r:.40}, not a text")
    # Omitted if false, because even `add_bos_token=False` makes transformers add a post-processor.
    options = {"add_bos_token": True} if add_bos else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=_backend(metadata, rule, path),
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=metadata[f"{metadata['general.architecture']}.context_length"],
        **special_ids,
        **options,
    )


def _check_lists(metadata: dict[str, Any], path: Path) -> None:
    """Raises `ModelError` unless tokens, their types and the merges are lists that fit."""
    for name, kind in (("tokens", str), ("token_type", int), ("merges", str)):
        values = metadata.get(f"tokenizer.ggml.{name}")
        if values is None:
            raise ModelError(
                f"{path} has no field 'tokenizer.ggml.{name}', so its tokenizer is incomplete; "
                "choose another file"
            )
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise ModelError(
                f"{path}: tokenizer.ggml.{name} is {values!r:.40}, not a list of "
                f"{'texts' if kind is str else 'whole numbers'}; choose another file"
            )
    tokens, token_types = (metadata[f"tokenizer.ggml.{x}"] for x in ("tokens", "token_type"))
    if len(tokens) != len(token_types):
        raise ModelError(
            f"{path} has {len(tokens)} tokens but {len(token_types)} token types; choose another "
            "file"
        )
    for merge in metadata["tokenizer.ggml.merges"]:
        if len(merge.split(" ")) != 2:
            raise ModelError(
                f"{path}: tokenizer.ggml.merges has {merge!r:.40}, which is not two tokens with a "
                "space between them; choose another file"
            )


def read_token_id(metadata: dict[str, Any], key: str, path: Path) -> int | None:
    """The id in tokenizer.ggml.KEY_token_id, or None; raises `ModelError` if no token has it."""
    name = f"tokenizer.ggml.{key}_token_id"
    token_id, count = metadata.get(name), len(metadata["tokenizer.ggml.tokens"])
    if token_id is None:
        return None
    if not isinstance(token_id, int) or not 0 <= token_id < count:
        raise ModelError(
            f"{path}: {name} is {token_id!r:.40}, but the tokens have the ids 0 to {count - 1}; "
            "choose another file"
        )
    return token_id


def _backend(metadata: dict[str, Any], rule: _Pretokenizer, path: Path) -> Tokenizer:
    types = metadata["tokenizer.ggml.token_type"]
    tokens = metadata["tokenizer.ggml.tokens"]
    vocab = {token: i for i, token in enumerate(tokens) if types[i] != _UNUSED}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    try:
        tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, ignore_merges=rule.ignore_merges))
    except Exception as error:  # the Rust library raises a bare Exception for an unknown token
        raise ModelError(
            f"{path}: tokenizer.ggml.merges cannot be used ({error}); choose another file"
        ) from error
    if rule.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = []
    if rule.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if rule.pattern:
        steps.append(pre_tokenizers.Split(Regex(rule.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not rule.pattern))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=types[i] != _USER_DEFINED, normalized=False)
        for i, token in enumerate(tokens)
        if types[i] in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    return tokenizer


def stop_token_ids(metadata: dict[str, Any], path: Path) -> list[int]:
    """The ids of the tokens that end a completion, the file's end-of-sequence token first.

    Raises:
        ModelError: the file names no end-of-sequence token.
    """
    end_of_sequence = read_token_id(metadata, "eos", path)
    if end_of_sequence is None:
        raise ModelError(
            f"{path} has no field 'tokenizer.ggml.eos_token_id', so it has no stop token; "
            "choose another file"
        )
    ids = [end_of_sequence]
    if (end_of_turn := read_token_id(metadata, "eot", path)) is not None:
        ids.append(end_of_turn)
    for i, token in enumerate(metadata["tokenizer.ggml.tokens"]):
        if token in _STOP_TOKENS and metadata["tokenizer.ggml.token_type"][i] == _CONTROL:
            ids.append(i)
    return list(dict.fromkeys(ids))


def special_token_ids(metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields eos_token_id, bos_token_id and pad_token_id of a config.json."""
    ids: dict[str, Any] = {"eos_token_id": stop_token_ids(metadata, path)}
    for name, key in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
        token_id = read_token_id(metadata, key, path)
        if token_id is not None:
            ids[name] = token_id
    return ids
