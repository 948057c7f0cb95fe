"""The table that maps Hugging Face tensor names to the leaves of our parameter trees.

A leaf is a tuple of keys, such as ("decoder", "layers", "mlp", "up_kernel"). Leaves under "layers"
are stacked: one array [L, ...] for L tensors. Each entry has the conversions of both directions, so
that reading and writing stay consistent.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asyppo_jax.models.config import ModelConfig

Leaf = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """Leaf, shapes and conversions of one tensor; `shape` is that of one layer in our layout."""

    leaf: Leaf
    shape: tuple[int, ...]
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]
    their_shape: tuple[int, ...]


def _same(leaf: Leaf, *shape: int) -> Entry:
    return Entry(leaf, shape, lambda x: x, lambda x: x, shape)


def _matrix(leaf: Leaf, fan_in: int, fan_out: int) -> Entry:
    # PyTorch stores (out, in); we store (in, out).
    return Entry(leaf, (fan_in, fan_out), np.transpose, np.transpose, (fan_out, fan_in))


def _heads_out(leaf: Leaf, embed: int, heads: int, dim: int) -> Entry:
    return Entry(
        leaf,
        (embed, heads, dim),
        lambda x: x.T.reshape(embed, heads, dim),
        lambda x: x.reshape(embed, heads * dim).T,
        (heads * dim, embed),
    )


def _heads_in(leaf: Leaf, heads: int, dim: int, embed: int) -> Entry:
    return Entry(
        leaf,
        (heads, dim, embed),
        lambda x: x.T.reshape(heads, dim, embed),
        lambda x: x.reshape(heads * dim, embed).T,
        (embed, heads * dim),
    )


def _head_bias(leaf: Leaf, heads: int, dim: int) -> Entry:
    return Entry(
        leaf,
        (heads, dim),
        lambda x: x.reshape(heads, dim),
        lambda x: x.reshape(heads * dim),
        (heads * dim,),
    )


def layer_table(c: ModelConfig) -> dict[str, Entry]:
    """The entries of one layer's tensors, by the part of the name after "layers.N."."""
    root = ("decoder", "layers")
    attention, mlp = (*root, "attention"), (*root, "mlp")
    table = {
        "input_layernorm.weight": _same((*root, "attention_norm", "scale"), c.embed_dim),
        "post_attention_layernorm.weight": _same((*root, "mlp_norm", "scale"), c.embed_dim),
        "self_attn.o_proj.weight": _heads_in(
            (*attention, "o_kernel"), c.num_heads, c.head_dim, c.embed_dim
        ),
        "mlp.gate_proj.weight": _matrix((*mlp, "gate_kernel"), c.embed_dim, c.mlp_dim),
        "mlp.up_proj.weight": _matrix((*mlp, "up_kernel"), c.embed_dim, c.mlp_dim),
        "mlp.down_proj.weight": _matrix((*mlp, "down_kernel"), c.mlp_dim, c.embed_dim),
    }
    for name, heads in (("q", c.num_heads), ("k", c.num_kv_heads), ("v", c.num_kv_heads)):
        kernel, bias = (*attention, f"{name}_kernel"), (*attention, f"{name}_bias")
        table[f"self_attn.{name}_proj.weight"] = _heads_out(kernel, c.embed_dim, heads, c.head_dim)
        if c.attention_bias:
            table[f"self_attn.{name}_proj.bias"] = _head_bias(bias, heads, c.head_dim)
        if c.qk_norm and name != "v":
            norm = (*attention, f"{name}_norm", "scale")
            table[f"self_attn.{name}_norm.weight"] = _same(norm, c.head_dim)
    return table


def top_table(c: ModelConfig, head: str, bins: int = 0) -> dict[str, Entry]:
    """The entries of the tensors outside the layers, by name; `head` is "actor" or "critic".

    `bins` is the number of a critic's outputs if its head is a distribution (`ops.value_heads`).
    """
    embedding = ("decoder", "embedding")
    table = {
        "embed_tokens.weight": _same(embedding, c.vocab_size, c.embed_dim),
        "norm.weight": _same(("decoder", "final_norm", "scale"), c.embed_dim),
    }
    if head == "actor" and not c.tie_embeddings:
        table["lm_head.weight"] = _matrix(("lm_head",), c.embed_dim, c.vocab_size)
    if head == "critic" and bins:
        table["score.weight"] = _matrix(("value_kernel",), c.embed_dim, bins)
        table["score.bias"] = _same(("value_bias",), bins)
    elif head == "critic":
        table["score.weight"] = Entry(
            ("value_kernel",),
            (c.embed_dim,),
            lambda x: x.reshape(-1),
            lambda x: x.reshape(1, -1),
            (1, c.embed_dim),
        )
        table["score.bias"] = Entry(
            ("value_bias",), (), lambda x: x.reshape(()), lambda x: x.reshape(1), (1,)
        )
    return table


_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
# A buffer in old exports. It is ignored, because we compute these frequencies from the config.
_COMPUTED = re.compile(r"(.*\.)?rotary_emb\.inv_freq")


def parse_name(name: str) -> tuple[int | None, str] | None:
    """A tensor's layer (None outside the layers) and short name; None for a buffer to ignore."""
    if _COMPUTED.fullmatch(name):
        return None
    short = name.removeprefix("model.")
    match = _LAYER.fullmatch(short)
    return (int(match[1]), match[2]) if match else (None, short)


def prefix_of(name: str) -> str:
    """What a wrapper (torch.compile, DDP, an adapter) put before a tensor's name, or ""."""
    match = re.match(r"(.+?\.)(?:model\.)?(?:layers\.\d+\.|embed_tokens\.|norm\.|lm_head\.)", name)
    return match[1] if match and match[1] != "model." else ""


def full_name(layer: int | None, short: str) -> str:
    """The tensor's name in transformers; `layer` is None outside the layers."""
    if layer is not None:
        return f"model.layers.{layer}.{short}"
    return short if short.startswith(("lm_head", "score")) else f"model.{short}"
