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
    if pre not in _PRETOKENIZERS:
        raise ModelError(
            f"{path}: tokenizer.ggml.pre {pre!r} is not supported; "
            f"it must be one of {', '.join(_PRETOKENIZERS)}"
        )
    for name in ("tokens", "token_type", "merges"):
        if f"tokenizer.ggml.{name}" not in metadata:
            raise ModelError(
                f"{path} has no field 'tokenizer.ggml.{name}', so its tokenizer is incomplete; "
                "choose another file"
            )
    rule = _PRETOKENIZERS[pre]
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    special_ids = {
        f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if f"tokenizer.ggml.{key}_token_id" in metadata
    }
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", rule.add_bos)
    # Omitted if false, because even `add_bos_token=False` makes transformers add a post-processor.
    options = {"add_bos_token": True} if add_bos else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=_backend(metadata, rule),
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=metadata[f"{metadata['general.architecture']}.context_length"],
        **special_ids,
        **options,
    )


def _backend(metadata: dict[str, Any], rule: _Pretokenizer) -> Tokenizer:
    types = metadata["tokenizer.ggml.token_type"]
    tokens = metadata["tokenizer.ggml.tokens"]
    vocab = {token: i for i, token in enumerate(tokens) if types[i] != _UNUSED}
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, ignore_merges=rule.ignore_merges))
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
    if "tokenizer.ggml.eos_token_id" not in metadata:
        raise ModelError(
            f"{path} has no field 'tokenizer.ggml.eos_token_id', so it has no stop token; "
            "choose another file"
        )
    ids = [metadata["tokenizer.ggml.eos_token_id"]]
    if "tokenizer.ggml.eot_token_id" in metadata:
        ids.append(metadata["tokenizer.ggml.eot_token_id"])
    for i, token in enumerate(metadata["tokenizer.ggml.tokens"]):
        if token in _STOP_TOKENS and metadata["tokenizer.ggml.token_type"][i] == _CONTROL:
            ids.append(i)
    return list(dict.fromkeys(ids))
