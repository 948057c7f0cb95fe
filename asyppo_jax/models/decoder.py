"""The trunk that actor and critics share the shape of: embedding, scanned blocks, final norm."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.layers import Block, Cache, RMSNorm, param

_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Decoder(nn.Module):
    """Tokens to hidden states. `remat` names what the backward pass may keep ("none": all)."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        visible: Bool[Array, "B T S"],
        cache: Cache | None = None,
        start: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Hidden states after the final norm, in `dtype`, and the cache with the new entries.

        Without a cache the keys are the tokens' own (S = T); with one, tokens t of the call go to
        cache slot `start` + t and `visible` speaks of the cache's S slots.
        """
        c = self.config
        embedding = param(self, "embedding", ("vocab", "embed"), (c.vocab_size, c.embed_dim))
        x = jnp.take(embedding, tokens, axis=0).astype(self.dtype)
        block = Block
        if self.remat != "none":
            # Inside a scan nothing is to be gained by preventing CSE, and it costs fusion.
            block = nn.remat(Block, policy=_POLICIES[self.remat], prevent_cse=False)
        scan: Any = nn.scan  # its annotation knows no tuple in in_axes
        layers = scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, name="layers")
        index = jnp.arange(c.num_layers, dtype=jnp.int32)
        start = jnp.asarray(start, jnp.int32)
        (x, cache), _ = layers((x, cache), index, positions, visible, start)
        return RMSNorm(c.norm_eps, name="final_norm")(x), cache


def empty_cache(config: ModelConfig, batch: int, slots: int, dtype: jnp.dtype) -> Cache:
    """A cache of zeros: keys and values, each [L, B, S, KV, head_dim]."""
    shape = (config.num_layers, batch, slots, config.num_kv_heads, config.head_dim)
    return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)


def positions_of(mask: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, … along the real tokens of each row; padding on the left holds 0."""
    return jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)


def causal_visibility(mask: Bool[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Token t sees the real tokens s ≤ t of its row."""
    length = mask.shape[-1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    return causal[None] & mask[:, None, :]
