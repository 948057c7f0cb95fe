"""Converts a GGUF file (llama.cpp's format, quantised or not) to a Hugging Face directory.

The weights are dequantised; with dtype float32 the values are written unchanged. A GGUF file
differs from what Hugging Face expects in two ways, and the conversion reverts both:

- In files of the llama architecture, and only in those, the rows of the query and key projections
  are reordered so that rotary pairs are neighbours.
- A tied embedding may be stored twice with two quantisations, as embedding and as output head.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from asyppo_jax.models.config import (
    ModelConfig,
    ModelError,
    RopeScaling,
    check_heads,
    read_number,
    read_size,
    to_huggingface,
)
from asyppo_jax.models.formats.gguf_tokenizer import special_token_ids, tokenizer_from_gguf

try:
    from gguf import GGUFReader, ReaderTensor
    from gguf.constants import GGML_QUANT_SIZES, GGUF_MAGIC
    from gguf.quants import dequantize
except ImportError as error:  # an extra; who reads GGUF files imports this module only then
    raise ModelError(
        f"reading GGUF files needs the package gguf ({error}); run `pip install -e '.[gguf]'` at "
        "the top of the checkout"
    ) from error

Metadata = dict[str, Any]  # GGUF key -> number, string or list

_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

# Two quantisations of one matrix differ by a few percent, two unrelated matrices by about 140%.
_SAME_MATRIX = 0.5

_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def convert_gguf(path: Path, output: Path, *, dtype: str = "float32") -> None:
    """Writes config.json, generation_config.json, model.safetensors and the tokenizer to `output`.

    `dtype` is "float32" or "bfloat16". The files are written to a temporary directory, which is
    renamed to `output` when it is complete.

    Raises:
        ModelError: `output` exists and is not empty; the file is not GGUF, is damaged, or is one
            part of several; its architecture, rotary scaling, tokenizer or quantisation is not
            supported; a tensor is unknown, missing or of the wrong shape.
    """
    if dtype not in _DTYPES:
        raise ModelError(f"dtype {dtype!r} is not supported; choose one of {', '.join(_DTYPES)}")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ModelError(f"{output} exists and is not an empty directory; choose another output")
    metadata, tensors = read_gguf(path)
    config = read_model_config(metadata, tensors, path)
    check_tensors(tensors, config, path)
    tokenizer = tokenizer_from_gguf(metadata, path)
    arrays, config = _convert_tensors(tensors, config, _DTYPES[dtype], path)
    token_ids = special_token_ids(metadata, path)
    values = to_huggingface(config) | token_ids | {"dtype": dtype}

    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        (partial / "config.json").write_text(json.dumps(values, indent=2) + "\n")
        (partial / "generation_config.json").write_text(json.dumps(token_ids, indent=2) + "\n")
        save_file(arrays, partial / "model.safetensors", metadata={"format": "pt"})
        # safetensors makes its file readable by the owner only; give it the mode of the others.
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
        tokenizer.save_pretrained(str(partial))
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_gguf(path: Path) -> tuple[Metadata, dict[str, ReaderTensor]]:
    """The metadata and the tensors of a GGUF file by name; tensors are quantised, memory-mapped."""
    if not path.is_file():
        raise ModelError(f"{path} is not a file; give the path of a .gguf file")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != GGUF_MAGIC.to_bytes(4, "little"):
        raise ModelError(
            f"{path} is not a GGUF file: it does not start with the bytes 'GGUF'; give another file"
        )
    try:
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ModelError(f"{path} is truncated or damaged ({error}); download it again") from error
    num_files = metadata.get("split.count", 0)
    if num_files not in (0, 1):
        raise ModelError(
            f"{path} is one of {num_files} parts; merge them with llama-gguf-split --merge"
        )
    return metadata, {tensor.name: tensor for tensor in reader.tensors}


def read_model_config(
    metadata: Metadata, tensors: dict[str, ReaderTensor], path: Path
) -> ModelConfig:
    """The architecture; `tie_embeddings` is true if the file has no separate output matrix."""
    architecture = _field(metadata, "general.architecture", path)
    if architecture not in ("llama", "qwen2", "qwen3"):
        raise ModelError(
            f"{path}: architecture {architecture!r} is not supported; use llama, qwen2 or qwen3"
        )
    if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
        raise ModelError(f"{path} has no tensor 'token_embd.weight'; is it a language model?")

    def size(name: str) -> int:
        value = _field(metadata, _key(metadata, name), path)
        if isinstance(value, list):
            raise ModelError(f"{path}: {name} differs between layers, which is not supported")
        return read_size(value, name, str(path))

    def number(name: str, default: float | None, most: int | float) -> float:
        key = _key(metadata, name)
        value = _field(metadata, key, path) if default is None else metadata.get(key, default)
        return _shortest_decimal(read_number(value, name, str(path), 0, most))

    def optional_size(name: str, default: int) -> int:
        return size(name) if _key(metadata, name) in metadata else default

    embed_dim, num_heads = size("embedding_length"), size("attention.head_count")
    head_dim = optional_size("attention.key_length", max(1, embed_dim // num_heads))
    rope_theta = number("rope.freq_base", 10000.0, 1e12)
    config = ModelConfig(
        model_type=architecture,
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        embed_dim=embed_dim,
        num_layers=size("block_count"),
        num_heads=num_heads,
        num_kv_heads=optional_size("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        mlp_dim=size("feed_forward_length"),
        norm_eps=number("attention.layer_norm_rms_epsilon", None, 1),
        rope_theta=rope_theta,
        rope_scaling=_rope_scaling(metadata, tensors, rope_theta, head_dim, path),
        tie_embeddings="output.weight" not in tensors,
        qk_norm=architecture == "qwen3",
        attention_bias=architecture == "qwen2",
        max_positions=size("context_length"),
    )
    check_heads(config, str(path))
    return config


def _field(metadata: Metadata, name: str, path: Path) -> Any:
    if name not in metadata:
        raise ModelError(f"{path} has no field {name!r}; is it a complete language model?")
    return metadata[name]


def _key(metadata: Metadata, name: str) -> str:
    return f"{metadata['general.architecture']}.{name}"


def _shortest_decimal(value: float) -> float:
    # GGUF stores float32. This restores the author's 1e-5 instead of 9.99999975e-06.
    return float(str(np.float32(value)))


def _rope_scaling(
    metadata: Metadata, tensors: dict[str, ReaderTensor], theta: float, head_dim: int, path: Path
) -> RopeScaling | None:
    """Llama-3's scaling, recovered from the frequency divisors that a GGUF file stores."""
    kind = metadata.get(_key(metadata, "rope.scaling.type"), "none")
    if kind != "none":
        raise ModelError(f"{path}: rotary scaling {kind!r} is not supported; only llama3's is")
    if "rope_freqs.weight" not in tensors:
        return None
    stored = dequantize(tensors["rope_freqs.weight"].data, tensors["rope_freqs.weight"].tensor_type)
    # Llama 3.1, 3.2 and 3.3 all use these constants. Other divisors are an error.
    scaling = RopeScaling(float(stored.max()), 1.0, 4.0, 8192)
    expected = rope_divisors(scaling, theta, head_dim)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-4):
        raise ModelError(
            f"{path}: rope_freqs.weight is not the rotary scaling of Llama 3.1 to 3.3; "
            "other scalings are not supported, choose another model"
        )
    return scaling


def rope_divisors(scaling: RopeScaling, theta: float, head_dim: int) -> np.ndarray:
    """The divisor of each rotary frequency under Llama-3's scaling, shape [head_dim / 2].

    1/d = (1 − s)/factor + s,  s = clip((original/wavelength − low)/(high − low), 0, 1)
    """
    wavelength = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    smooth = np.clip((scaling.original_max_position / wavelength - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / scaling.factor + smooth)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """GGUF tensor name -> shape (out, in), for every tensor that the model must have."""
    embed, heads = config.embed_dim, config.num_heads * config.head_dim
    kv_heads, mlp = config.num_kv_heads * config.head_dim, config.mlp_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (embed,),
        "attn_q.weight": (heads, embed),
        "attn_k.weight": (kv_heads, embed),
        "attn_v.weight": (kv_heads, embed),
        "attn_output.weight": (embed, heads),
        "ffn_norm.weight": (embed,),
        "ffn_gate.weight": (mlp, embed),
        "ffn_up.weight": (mlp, embed),
        "ffn_down.weight": (embed, mlp),
    }
    if config.attention_bias:
        layer |= {
            "attn_q.bias": (heads,),
            "attn_k.bias": (kv_heads,),
            "attn_v.bias": (kv_heads,),
        }
    if config.qk_norm:
        layer |= {
            "attn_q_norm.weight": (config.head_dim,),
            "attn_k_norm.weight": (config.head_dim,),
        }
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.vocab_size, embed),
        "output_norm.weight": (embed,),
    }
    if not config.tie_embeddings:
        shapes["output.weight"] = (config.vocab_size, embed)
    for i in range(config.num_layers):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def check_tensors(tensors: dict[str, ReaderTensor], config: ModelConfig, path: Path) -> None:
    """Raises `ModelError` on a tensor that is unknown, missing or of the wrong shape."""
    expected = expected_shapes(config)
    for name in tensors:
        if name not in expected and name != "rope_freqs.weight":
            raise ModelError(
                f"{path}: tensor {name!r} is unknown in a {config.model_type} model of "
                f"{config.num_layers} layers, and ignoring it would change the model; "
                "choose another model"
            )
    for name, shape in expected.items():
        if name not in tensors:
            raise ModelError(f"{path} has no tensor {name!r}; download or quantise the file again")
        stored = tuple(int(n) for n in reversed(tensors[name].shape))
        if stored != shape:
            raise ModelError(
                f"{path}: tensor {name!r} has shape {stored}, but the file's metadata imply "
                f"{shape}; download or quantise the file again"
            )


def huggingface_name(name: str) -> str:
    """The Hugging Face name: 'blk.3.attn_q.weight' -> 'model.layers.3.self_attn.q_proj.weight'."""
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{_LAYER_NAMES[rest]}"


def unpermute_rotary_rows(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """`weight` with its rows reordered from (heads, half, 2), GGUF's order, to (heads, 2, half)."""
    rows = weight.shape[0]
    split = weight.reshape(num_heads, rows // num_heads // 2, 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


def _convert_tensors(
    tensors: dict[str, ReaderTensor], config: ModelConfig, dtype: np.dtype, path: Path
) -> tuple[dict[str, np.ndarray], ModelConfig]:
    sources = {name: tensors[name] for name in expected_shapes(config)}
    if not config.tie_embeddings and _is_tied(sources, path):
        embedding, head = sources["token_embd.weight"], sources.pop("output.weight")
        sources["token_embd.weight"] = max(embedding, head, key=_bits_per_weight)
        config = dataclasses.replace(config, tie_embeddings=True)
    rotary_heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
    arrays = {}
    for name, tensor in sources.items():
        array = _dequantize(tensor, path)
        projection = name.split(".")[-2]
        if config.model_type == "llama" and projection in rotary_heads:
            array = unpermute_rotary_rows(array, rotary_heads[projection])
        arrays[huggingface_name(name)] = np.ascontiguousarray(array, dtype=dtype)
    return arrays, config


def _is_tied(tensors: dict[str, ReaderTensor], path: Path) -> bool:
    embedding = _dequantize(tensors["token_embd.weight"], path)
    head = _dequantize(tensors["output.weight"], path)
    return bool(np.linalg.norm(head - embedding) < _SAME_MATRIX * np.linalg.norm(embedding))


def _bits_per_weight(tensor: ReaderTensor) -> float:
    block_size, num_bytes = GGML_QUANT_SIZES[tensor.tensor_type]
    return 8 * num_bytes / block_size


def _dequantize(tensor: ReaderTensor, path: Path) -> np.ndarray:
    try:
        return dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise ModelError(
            f"{path}: tensor {tensor.name!r} is quantised as {tensor.tensor_type.name}, which the "
            "gguf package cannot dequantise; choose another quantisation of the model"
        ) from error
