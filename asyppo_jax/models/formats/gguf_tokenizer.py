"""Rebuilds the byte-level BPE tokenizer that a GGUF file carries.

transformers can read it too, but (seen with 5.23) only where PyTorch is installed. The rule that
cuts text before the merges is not in the file, only its name is: hence the table below.
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

# What a model may write to end its turn or text; GGUF names only one of them.
_STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")


@dataclass(frozen=True)
class _Pretokenizer:
    """How text is cut before the merges, for one value of `tokenizer.ggml.pre`."""

    pattern: str = ""  # empty: GPT-2's own
    single_digits: bool = False
    nfc: bool = False  # Unicode normal form C first
    ignore_merges: bool = False  # a piece that is a token is taken whole
    add_bos: bool = False  # where the file does not say


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

    Tokens of type "unused", which only pad the vocabulary to the embedding's rows, are left out.

    Raises:
        ModelError: the file has no tokenizer, or one of a kind that is not supported.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise ModelError(
            f"{path}: tokenizer {model!r} is not supported; byte-level BPE, 'gpt2', is"
        )
    pre = metadata.get("tokenizer.ggml.pre")
    if pre not in _PRETOKENIZERS:
        raise ModelError(
            f"{path}: tokenizer.ggml.pre is {pre!r}; supported are {', '.join(_PRETOKENIZERS)}"
        )
    for name in ("tokens", "token_type", "merges"):
        if f"tokenizer.ggml.{name}" not in metadata:
            raise ModelError(f"{path} has no field 'tokenizer.ggml.{name}', so no whole tokenizer")
    rule = _PRETOKENIZERS[pre]
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    special_ids = {
        f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if f"tokenizer.ggml.{key}_token_id" in metadata
    }
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", rule.add_bos)
    # Even `add_bos_token=False` would make transformers build a post-processor of its own.
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
    cuts: list[Any] = []
    if rule.single_digits:
        cuts.append(pre_tokenizers.Digits(individual_digits=True))
    if rule.pattern:
        cuts.append(pre_tokenizers.Split(Regex(rule.pattern), behavior="isolated"))
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not rule.pattern))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=types[i] != _USER_DEFINED, normalized=False)
        for i, token in enumerate(tokens)
        if types[i] in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    return tokenizer


def stop_token_ids(metadata: dict[str, Any], path: Path) -> list[int]:
    """The ids that end a completion: the file's end-of-sequence token first, then its others.

    Raises:
        ModelError: the file names no end-of-sequence token.
    """
    if "tokenizer.ggml.eos_token_id" not in metadata:
        raise ModelError(f"{path} has no field 'tokenizer.ggml.eos_token_id', so no stop token")
    ids = [metadata["tokenizer.ggml.eos_token_id"]]
    if "tokenizer.ggml.eot_token_id" in metadata:
        ids.append(metadata["tokenizer.ggml.eot_token_id"])
    for i, token in enumerate(metadata["tokenizer.ggml.tokens"]):
        if token in _STOP_TOKENS and metadata["tokenizer.ggml.token_type"][i] == _CONTROL:
            ids.append(i)
    return list(dict.fromkeys(ids))
