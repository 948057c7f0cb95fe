"""The modules of a decoder block; every parameter's axes are named where it is made."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyppo_jax.models.attention.self_attention import AttentionBackend, self_attention
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.rotary import Rotation, rotate
from asyppo_jax.ops.norm import rms_norm
from asyppo_jax.ops.products import (
    dense,
    gated_mlp,
    small_batch_dense,
    small_batch_gated_mlp,
    squeeze_leading,
)
from asyppo_jax.runtime.sharding import constrain

# Queries, keys and values of the call's tokens -> the attention output, and keys and values or a
# cache to return.
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]

_init = nn.initializers.normal(0.02)


def param(
    module: nn.Module,
    name: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    init: Any = _init,
) -> Any:
    """A float32 parameter whose axes carry the logical names of `asyppo_jax.runtime.sharding`."""
    return module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)


class RMSNorm(nn.Module):
    """See `rms_norm`."""

    eps: float
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale = param(self, "scale", (self.axis,), x.shape[-1:], nn.initializers.ones)
        scaled: Any = rms_norm(squeeze_leading(x), jnp.asarray(scale), self.eps)
        return scaled.reshape(x.shape)


class _Products(nn.Module):
    """Matrix products with the module's kernels.

    With `outputs_first` kernels are stored as `with_outputs_first` makes them, and x is one token
    per row.
    """

    config: ModelConfig
    outputs_first: bool = False

    def kernel(self, name: str, dtype: Any, into: dict[str, int], out: dict[str, int]) -> jax.Array:
        """The kernel as a matrix; `into` and `out` are its axes' names and sizes."""
        first, last = (out, into) if self.outputs_first else (into, out)
        axes = first | last
        made = param(self, f"{name}_kernel", tuple(axes), tuple(axes.values()))
        return made.astype(dtype).reshape(math.prod(first.values()), -1)

    def times(self, x: Float[Array, "B T D"], kernel: Any) -> Float[Array, "B T F"]:
        """x · W for a `kernel` of this module."""
        if self.outputs_first:
            return small_batch_dense(x[:, 0], kernel)[:, None]
        return dense(x, kernel)


def with_outputs_first(params: Any) -> Any:
    """A layer's parameters for a `Block` with `outputs_first`: kernels [*out, *into]."""

    def move_outputs(path, x):
        name = path[-1].key
        if not name.endswith("_kernel"):
            return x
        return jnp.moveaxis(x, -1, 0) if name == "o_kernel" else jnp.moveaxis(x, 0, -1)

    return jax.tree_util.tree_map_with_path(move_outputs, params)


class Attention(_Products):
    """Grouped-query attention; `mix` attends, to the tokens of the call or to a cache."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], rotation: Rotation, mix: Mix
    ) -> tuple[Float[Array, "B T D"], Any]:
        c = self.config
        queries = self.project(x, "q", "heads", c.num_heads)
        keys = self.project(x, "k", "kv_heads", c.num_kv_heads)
        values = self.project(x, "v", "kv_heads", c.num_kv_heads)
        if c.qk_norm:
            queries = RMSNorm(c.norm_eps, "head_dim", name="q_norm")(queries)
            keys = RMSNorm(c.norm_eps, "head_dim", name="k_norm")(keys)
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        mixed, kv = mix(queries, keys, values)
        heads = {"heads": c.num_heads, "head_dim": c.head_dim}
        kernel = self.kernel("o", x.dtype, heads, {"embed": c.embed_dim})
        return self.times(mixed.reshape(*x.shape[:2], -1), kernel), kv

    def project(
        self, x: Float[Array, "B T D"], name: str, axis: str, num_heads: int
    ) -> Float[Array, "B T H k"]:
        c = self.config
        heads = {axis: num_heads, "head_dim": c.head_dim}
        out = self.times(x, self.kernel(name, x.dtype, {"embed": c.embed_dim}, heads))
        out = out.reshape(*x.shape[:2], num_heads, c.head_dim)
        if c.attention_bias:
            zeros = nn.initializers.zeros
            bias = param(self, f"{name}_bias", tuple(heads), tuple(heads.values()), zeros)
            out = out + bias.astype(x.dtype)[None, None]
        return out


class GatedMLP(_Products):
    """down( silu(gate(x)) · up(x) ) (arXiv 2002.05202)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        embed, mlp = {"embed": self.config.embed_dim}, {"mlp": self.config.mlp_dim}
        gate = self.kernel("gate", x.dtype, embed, mlp)
        up = self.kernel("up", x.dtype, embed, mlp)
        down = self.kernel("down", x.dtype, mlp, embed)
        if self.outputs_first:
            return small_batch_gated_mlp(x[:, 0], gate, up, down)[:, None]
        return gated_mlp(x, gate, up, down)


class Block(nn.Module):
    """One pre-norm layer, with the signature of `nn.scan`: carry in; carry and output out.

    Tokens see the earlier ones of their segment; `keep_kv` returns their keys and values. A
    decoding step passes a `mix` that attends to its cache instead.
    """

    config: ModelConfig
    backend: AttentionBackend = "xla"
    keep_kv: bool = False
    outputs_first: bool = False

    @nn.compact
    def __call__(self, x, rotation, segments: Any = None, mix: Mix | None = None):
        def attend_to_segment(queries, keys, values):
            mixed = self_attention(queries, keys, values, segments, self.backend)
            return mixed, (keys, values) if self.keep_kv else None

        eps = self.config.norm_eps
        normed = RMSNorm(eps, name="attention_norm")(x)
        attention = Attention(self.config, self.outputs_first, name="attention")
        mixed, kv = attention(normed, rotation, mix or attend_to_segment)
        x = x + mixed
        mlp = GatedMLP(self.config, self.outputs_first, name="mlp")
        x = x + mlp(RMSNorm(eps, name="mlp_norm")(x))
        # At every layer, so that the partitioner all-gathers weights and not activations.
        return constrain(x, ("batch", "residual_time", None)), kv
