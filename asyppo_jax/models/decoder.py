"""The trunk that actor and critics share the shape of: embedding, scanned blocks, final norm."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention.segments import Branches, Segments, turn
from asyppo_jax.models.attention.self_attention import AttentionBackend
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.layers import Block, RMSNorm, param
from asyppo_jax.models.rotary import rotation_at
from asyppo_jax.ops.products import PRODUCT
from asyppo_jax.runtime.sharding import constrain

_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Decoder(nn.Module):
    """Tokens to hidden states. `remat` names what the backward pass may keep ("none": all)."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: AttentionBackend = "xla"
    unroll: int = 1  # layers in one turn of the loop over them; 0: all
    keep: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Segments,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Hidden states after the final norm, in `dtype`; with `keep` also every layer's keys and
        values, each [L, B, T, KV, d].

        Tokens see the earlier ones of their segment; segment 0 is padding. What is kept with
        attention "cudnn" begins with a row's first token, whatever padding lies before that.
        """
        c = self.config
        first = None
        if self.attention == "cudnn":
            assert not isinstance(segments, Branches), "branches take the form cudnn_packed"
            first = jnp.argmax(segments > 0, axis=1)
            tokens, positions, segments = (turn(x, first) for x in (tokens, positions, segments))
        embedding = param(self, "embedding", ("vocab", "embed"), (c.vocab_size, c.embed_dim))
        x = jnp.take(embedding, tokens, axis=0).astype(self.dtype)
        x = constrain(x, ("batch", "kept_time", None))
        block = Block
        if self.remat != "none":
            # Inside a scan nothing is to be gained by preventing CSE, and it costs fusion.
            block = nn.remat(Block, policy=_POLICIES[self.remat], prevent_cse=False)
        scan: Any = nn.scan
        layers = scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.num_layers,
            unroll=min(self.unroll or c.num_layers, c.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, self.attention, self.keep, name="layers")
        x, kept = layers(x, rotation_at(positions, c), segments)
        hidden = RMSNorm(c.norm_eps, name="final_norm")(x)
        return hidden if first is None else turn(hidden, -first), kept
