"""The parts of a decoder block, with every parameter's axes named where it is made."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyppo_jax.models.attention import Rotation, rotate
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.self_attention import Implementation, self_attention
from asyppo_jax.ops.products import dense, gated_mlp, without_ones
from asyppo_jax.sharding import constrain

# Queries, keys and values of the call's tokens -> what is mixed from values, and what is kept.
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]

_init = nn.initializers.normal(0.02)


def param(
    module: nn.Module,
    name: str,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    init: Any = _init,
) -> Any:
    """A float32 parameter whose axes carry the logical names of `asyppo_jax.sharding`."""
    return module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)


class RMSNorm(nn.Module):
    """x / rms(x) · scale over the last axis, in float32 (arXiv 1910.07467)."""

    eps: float
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale = param(self, "scale", (self.axis,), x.shape[-1:], nn.initializers.ones)
        x32 = without_ones(x).astype(jnp.float32)
        scaled = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        scaled = scaled * jnp.reshape(scale, (1,) * (x32.ndim - 1) + (-1,))
        return scaled.astype(x.dtype).reshape(x.shape)


class Attention(nn.Module):
    """Grouped-query attention: `mix` says what the tokens of the call attend to."""

    config: ModelConfig

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
        mixed, kept = mix(queries, keys, values)
        kernel = param(
            self,
            "o_kernel",
            ("heads", "head_dim", "embed"),
            (c.num_heads, c.head_dim, c.embed_dim),
        )
        kernel = kernel.astype(x.dtype).reshape(-1, c.embed_dim)
        return dense(mixed.reshape(*x.shape[:2], -1), kernel), kept

    def project(
        self, x: Float[Array, "B T D"], name: str, axis: str, num_heads: int
    ) -> Float[Array, "B T H k"]:
        c = self.config
        shape = (c.embed_dim, num_heads, c.head_dim)
        kernel = param(self, f"{name}_kernel", ("embed", axis, "head_dim"), shape)
        out = dense(x, kernel.astype(x.dtype).reshape(c.embed_dim, -1))
        out = out.reshape(*x.shape[:2], num_heads, c.head_dim)
        if c.attention_bias:
            zeros = nn.initializers.zeros
            bias = param(self, f"{name}_bias", (axis, "head_dim"), shape[1:], zeros)
            out = out + bias.astype(x.dtype)[None, None]
        return out


class GatedMLP(nn.Module):
    """down( silu(gate(x)) · up(x) ) (arXiv 2002.05202)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        embed, mlp = self.config.embed_dim, self.config.mlp_dim
        gate = param(self, "gate_kernel", ("embed", "mlp"), (embed, mlp))
        up = param(self, "up_kernel", ("embed", "mlp"), (embed, mlp))
        down = param(self, "down_kernel", ("mlp", "embed"), (mlp, embed))
        return gated_mlp(x, *(kernel.astype(x.dtype) for kernel in (gate, up, down)))


class Block(nn.Module):
    """One pre-norm layer, in the form that `nn.scan` wants: carry in, carry and output out.

    Tokens see the earlier ones of their segment, and `keep` puts out their keys and values; a
    decoding step gives its own `mix` instead, which knows the cache.
    """

    config: ModelConfig
    implementation: Implementation = "xla"
    keep: bool = False

    @nn.compact
    def __call__(self, x, rotation, segments: Any = None, mix: Mix | None = None):
        def own(queries, keys, values):
            mixed = self_attention(queries, keys, values, segments, self.implementation)
            return mixed, (keys, values) if self.keep else None

        eps = self.config.norm_eps
        normed = RMSNorm(eps, name="attention_norm")(x)
        attention = Attention(self.config, name="attention")
        mixed, kept = attention(normed, rotation, mix or own)
        x = x + mixed
        x = x + GatedMLP(self.config, name="mlp")(RMSNorm(eps, name="mlp_norm")(x))
        # Said at every layer, so that the partitioner gathers weights and not activations.
        return constrain(x, ("batch", "kept_time", None)), kept
