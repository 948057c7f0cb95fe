"""The actor: a decoder with a language-model head, over sequences or one token at a time.

Both ways share the embedding, the blocks, the final norm and the head, so a new architecture is
written once.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention.decode_attention import BLOCKS, Cache, DecodeBackend
from asyppo_jax.models.attention.decode_blocks import SharedPromptCache
from asyppo_jax.models.attention.self_attention import AttentionBackend
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.decoder import Decoder, embed, final_norm, trunk_fields
from asyppo_jax.models.layers import Block, param, with_outputs_first
from asyppo_jax.models.rotary import Rotation, rotation_at
from asyppo_jax.ops.products import small_batch_dense
from asyppo_jax.runtime.sharding import constrain
from asyppo_jax.types import Params


class Actor(nn.Module):
    """A decoder with a language-model head, tied to the embedding or its own."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    remat: str = "none"
    attention: AttentionBackend = "xla"
    unroll: int = 1
    decode: DecodeBackend = BLOCKS

    @nn.compact
    def __call__(self, tokens, positions, segments, keep_kv=False):
        """Hidden states, and with `keep_kv` the keys and values of every layer."""
        c = self.config
        if not c.tie_embeddings:
            param(self, "lm_head", ("embed", "vocab"), (c.embed_dim, c.vocab_size))
        fields = trunk_fields(self)
        if keep_kv:  # they are stacked in one array anyway
            fields["unroll"] = 1
        return Decoder(**fields, keep_kv=keep_kv, name="decoder")(tokens, positions, segments)


def head_kernel(actor: Actor, params: Params) -> Float[Array, "D V"]:
    """The matrix from hidden states to logits, float32."""
    if actor.config.tie_embeddings:
        return params["decoder"]["embedding"].T
    return params["lm_head"]


def last_logits(actor: Actor, params: Params, hidden: Float[Array, "B 1 D"]) -> Float[Array, "B V"]:
    """The logits after one token per row, float32."""
    kernel = head_kernel(actor, params).astype(hidden.dtype)
    return jnp.einsum("bd,dv->bv", hidden[:, 0], kernel, preferred_element_type=jnp.float32)


def decoding_step_params(actor: Actor, params: Params, length: int) -> Params:
    """The parameters as `decoding_step` reads them, for rows of up to `length` tokens.

    Made once, before the loop over tokens. Inside it every layer would compute its rotation
    again, and XLA's CPU backend would copy each layer's slice of the stacked arrays per token.
    """
    decoder, backend = dict(params["decoder"]), actor.decode
    decoder["rotation"] = rotation_at(jnp.arange(length)[None], actor.config)
    if backend.per_layer:
        stacked, count = decoder["layers"], actor.config.num_layers
        layers = (jax.tree.map(lambda p, i=i: p[i], stacked) for i in range(count))
        decoder["layers"] = tuple(layers)
    if not backend.for_small_batch:
        return params | {"decoder": decoder}
    decoder["layers"] = tuple(with_outputs_first(layer) for layer in decoder["layers"])
    head = head_kernel(actor, params).T.astype(actor.dtype)
    return params | {"decoder": decoder, "head": head}


def decoding_step(
    actor: Actor,
    params: Params,
    tokens: Int[Array, " R"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
    cache: Cache,
    prompts: SharedPromptCache | None = None,
) -> tuple[Float[Array, "R V"], Cache]:
    """The logits after one more token per row, float32, and the cache with that token.

    `params` are `decoding_step_params`. `lengths` counts a row's tokens so far; `longest` is the
    largest number of them in any row of the cache. With `prompts`, a row's first tokens are in
    `prompts` and the others in the cache.
    """
    decoder = params["decoder"]
    x = embed(decoder["embedding"], tokens[:, None], actor.dtype)
    x = constrain(x, ("batch", None, None))
    rotation = jax.tree.map(lambda a: jnp.take(a[0], lengths[:, None], 0), decoder["rotation"])
    in_cache = lengths if prompts is None else prompts.in_cache(lengths)
    run = _layers_one_by_one if actor.decode.per_layer else _layers_in_a_loop
    x, cache = run(actor, decoder["layers"], x, rotation, cache, (in_cache, longest), prompts)
    norm: Any = final_norm(actor.config)
    x = norm.apply({"params": decoder["final_norm"]}, x)
    if actor.decode.for_small_batch:
        return small_batch_dense(x[:, 0], params["head"], jnp.float32), cache
    return last_logits(actor, params, x), cache


def _block(
    actor: Actor,
    layer: Params,
    x: Array,
    rotation: Rotation,
    attend: Any,
    lengths: tuple[Array, Array],
) -> Any:
    """One layer; `attend` is the backend's, given its cache; `lengths` are (in cache, longest)."""

    def mix(queries, keys, values):
        return attend(queries, keys, values, *lengths)

    block = Block(actor.config, actor.attention, outputs_first=actor.decode.for_small_batch)
    return block.apply({"params": layer}, x, rotation, None, mix)


def _layers_one_by_one(actor, layers, x, rotation, cache, lengths, prompts):
    """Each layer with its own cache, compiled by itself."""
    caches = []
    for i, (layer, layer_cache) in enumerate(zip(layers, cache, strict=True)):
        attend = partial(actor.decode.attend, layer_cache)
        if prompts is not None:
            attend = partial(attend, prompts=(prompts.layers[i], prompts.prompt_index))
        x, layer_cache = _block(actor, layer, x, rotation, attend, lengths)
        caches.append(layer_cache)
    return x, tuple(caches)


def _layers_in_a_loop(actor, layers, x, rotation, cache, lengths, prompts):
    """All layers in one loop over a cache of all layers."""
    assert prompts is None, f"{actor.decode.name} has no shared prompts"

    def one_layer(carry, layer_and_index):
        (x, cache), (layer, index) = carry, layer_and_index
        attend = partial(actor.decode.attend, cache, index)
        return _block(actor, layer, x, rotation, attend, lengths), None

    index = jnp.arange(actor.config.num_layers, dtype=jnp.int32)
    (x, cache), _ = jax.lax.scan(one_layer, (x, cache), (layers, index))
    return x, cache
