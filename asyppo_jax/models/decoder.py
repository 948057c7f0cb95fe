"""The trunk of actor and critics: embedding, scanned blocks, final norm."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention.causal_kernels import ATTENTION_OUTPUT
from asyppo_jax.models.attention.segments import Segments, SharedPrompts, roll_rows
from asyppo_jax.models.attention.self_attention import AttentionBackend
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.layers import Block, RMSNorm, param
from asyppo_jax.models.rotary import rotation_at
from asyppo_jax.ops.products import ATTENTION_PRODUCT, GATE_PRODUCT, UP_PRODUCT
from asyppo_jax.runtime.sharding import constrain

# What a layer stores beside its input, by `remat`. The output of its last product is never read.
_STORED = {
    "dots": (ATTENTION_OUTPUT, ATTENTION_PRODUCT, GATE_PRODUCT, UP_PRODUCT),
    "attention_gate": (ATTENTION_OUTPUT, ATTENTION_PRODUCT, GATE_PRODUCT),
    "attention": (ATTENTION_OUTPUT, ATTENTION_PRODUCT),
    "full": (),
}


def embed(embedding: Any, tokens: Int[Array, "B T"], dtype: jnp.dtype) -> Float[Array, "B T D"]:
    """What the first block reads of each token."""
    return jnp.take(embedding, tokens, axis=0).astype(dtype)


def final_norm(config: ModelConfig, name: str | None = None) -> RMSNorm:
    """The norm between the last block and the head."""
    return RMSNorm(config.norm_eps, name=name)


def trunk_fields(network: Any) -> dict[str, Any]:
    """The fields that an actor or a critic hands on to its `Decoder`."""
    return {name: getattr(network, name) for name in _TRUNK_FIELDS}


_TRUNK_FIELDS = ("config", "dtype", "remat", "attention", "unroll")


class Decoder(nn.Module):
    """Tokens to hidden states; `remat` says what the backward pass recomputes."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: AttentionBackend = "xla"
    unroll: int = 1  # layers per scan iteration; 0: all
    keep_kv: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Segments,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Hidden states after the final norm, in `dtype`; with `keep_kv` also the keys and values
        of every layer, each [L, B, T, KV, d].

        Tokens see the earlier ones of their segment; segment 0 is padding. With attention "cudnn"
        keys and values begin with a row's first token, without the padding before it.
        """
        c = self.config
        first = None
        if self.attention == "cudnn":
            assert not isinstance(segments, SharedPrompts), (
                "rows with a shared prompt need the backend cudnn_packed"
            )
            first = jnp.argmax(segments > 0, axis=1)
            tokens, positions, segments = (
                roll_rows(x, first) for x in (tokens, positions, segments)
            )
        embedding = param(self, "embedding", ("vocab", "embed"), (c.vocab_size, c.embed_dim))
        x = constrain(embed(embedding, tokens, self.dtype), ("batch", "residual_time", None))
        block = Block
        if self.remat != "none":
            # Inside a scan, preventing CSE gains nothing and costs fusion.
            policy = jax.checkpoint_policies.save_only_these_names(*_STORED[self.remat])
            block = nn.remat(Block, policy=policy, prevent_cse=False)
        scan: Any = nn.scan
        layers = scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.num_layers,
            unroll=min(self.unroll or c.num_layers, c.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, self.attention, self.keep_kv, name="layers")
        x, kv = layers(x, rotation_at(positions, c), segments)
        hidden = final_norm(c, "final_norm")(x)
        return hidden if first is None else roll_rows(hidden, -first), kv
