"""Prefill: one forward pass over the prompts, in batches of prompts of similar length."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.runtime.sharding import constrain_batch, max_over_data_shards
from asyppo_jax.types import Params, PromptBatch

_MIN_WIDTH = 64  # tokens; a narrower program would save less time than its compilation takes
_MAX_BATCHES = 4  # each batch uses the smallest of `bucket_widths` that its longest prompt fits in


def prefill(
    params: Params, prompts: PromptBatch, networks: Networks
) -> tuple[Int[Array, " N"], Float[Array, "N V"], tuple[Array, Array]]:
    """The prompt lengths, the logits of the first completion token, and the keys and values.

    Keys and values are [L, N, P, KV, d] and start at the prompt's first real token; entries after
    its last token are not used. The result does not depend on how prompts are batched.
    """
    lengths = jnp.sum(prompts.mask, axis=-1, dtype=jnp.int32)
    count, width = prompts.tokens.shape
    positions = (jnp.arange(width)[None] + width - lengths[:, None]) % width
    tokens = constrain_batch(jnp.take_along_axis(prompts.tokens, positions, axis=1))
    widths = bucket_widths(width)
    num_batches = next(n for n in range(min(_MAX_BATCHES, count), 0, -1) if count % n == 0)
    if len(widths) == 1 or num_batches == 1:
        return lengths, *networks.actor_prefill(params, tokens, lengths)

    def prefill_at_width(width: int, tokens: Int[Array, "n P"], lengths: Int[Array, " n"]):
        logits, kv_cache = networks.actor_prefill(params, tokens[:, :width], lengths)
        padding = ((0, 0), (0, 0), (0, tokens.shape[1] - width), (0, 0), (0, 0))
        return logits, jax.tree.map(lambda x: jnp.pad(x, padding), kv_cache)

    def prefill_batch(batch):
        tokens, lengths = batch
        bucket = jnp.searchsorted(jnp.asarray(widths), jnp.max(lengths))
        bucket = max_over_data_shards(bucket)
        programs = [partial(prefill_at_width, width) for width in widths]
        return jax.lax.switch(bucket, programs, tokens, lengths)

    order = jnp.argsort(lengths)
    batches = [x[order].reshape(num_batches, -1, *x.shape[1:]) for x in (tokens, lengths)]
    logits, kv_cache = jax.lax.map(prefill_batch, tuple(batches))
    inverse = jnp.argsort(order)

    def join(x):  # [batches, L, n, ...] -> [L, N, ...]
        return jnp.take(x.swapaxes(0, 1).reshape(x.shape[1], count, *x.shape[3:]), inverse, axis=1)

    return lengths, logits.reshape(count, -1)[inverse], jax.tree.map(join, kv_cache)


def bucket_widths(width: int) -> tuple[int, ...]:
    """The widths at which prompts are prefilled, ascending: `width`, half of it, a quarter, …

    No width is below 64 tokens, except for `width` itself.
    """
    widths = [width]
    while widths[0] >= 2 * _MIN_WIDTH:
        widths.insert(0, -(-widths[0] // 2))
    return tuple(widths)
