"""The trunk that actor and critics share the shape of: embedding, scanned blocks, final norm."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.layers import PRODUCT, Block, Cache, RMSNorm, param
from asyppo_jax.models.self_attention import Implementation
from asyppo_jax.sharding import constrain

_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Decoder(nn.Module):
    """Tokens to hidden states. `remat` names what the backward pass may keep ("none": all)."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: Implementation = "xla"

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"] | None = None,
        visible: Bool[Array, "B T S"] | None = None,
        cache: Cache | None = None,
        start: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Hidden states after the final norm, in `dtype`, and the cache with the new entries.

        With `segments` (0 is padding) tokens see the earlier ones of their segment; with `visible`
        they see slots of the cache. Tokens t of the call go to cache slot `start` + t.
        """
        c = self.config
        embedding = param(self, "embedding", ("vocab", "embed"), (c.vocab_size, c.embed_dim))
        x = jnp.take(embedding, tokens, axis=0).astype(self.dtype)
        x = constrain(x, ("batch", "kept_time", None))
        block = Block
        if self.remat != "none":
            # Inside a scan nothing is to be gained by preventing CSE, and it costs fusion.
            block = nn.remat(Block, policy=_POLICIES[self.remat], prevent_cse=False)
        scan: Any = nn.scan  # its annotation knows no tuple in in_axes
        layers = scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, *[nn.broadcast] * 4),
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, self.attention, name="layers")
        index = jnp.arange(c.num_layers, dtype=jnp.int32)
        start = jnp.asarray(start, jnp.int32)
        (x, cache), _ = layers((x, cache), index, positions, segments, visible, start)
        return RMSNorm(c.norm_eps, name="final_norm")(x), cache


def empty_cache(config: ModelConfig, batch: int, slots: int, dtype: jnp.dtype) -> Cache:
    """A cache of zeros: keys and values, each [L, B, S, KV, head_dim]."""
    shape = (config.num_layers, batch, slots, config.num_kv_heads, config.head_dim)
    return constrain_cache((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)))


def constrain_cache(cache: Cache) -> Cache:
    """Inside jit: rows over `data`, key heads over `model`."""
    keys, values = (
        constrain(x, ("layers", "batch", "time", "kv_heads", "head_dim")) for x in cache
    )
    return keys, values


def positions_of(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, … from the first token of every segment on; segments lie in one piece, padding is 0."""
    places = jnp.arange(segments.shape[-1], dtype=jnp.int32)[None]
    before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = jax.lax.cummax(jnp.where(segments != before, places, 0), axis=1)
    return jnp.where(segments > 0, places - starts, 0)
