"""Prefill: every prompt once, in batches of prompts of like length, each as wide as its longest."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.runtime.sharding import constrain_batch, largest_of_shards
from asyppo_jax.types import Params, PromptBatch

_NARROWEST = 64  # tokens; below this a narrower program wins less than its compilation costs
_BATCHES = 4  # at the most; each is as wide as its longest prompt, in a power of two of the whole


def prefill(
    params: Params, prompts: PromptBatch, networks: Networks
) -> tuple[Int[Array, " N"], Float[Array, "N V"], tuple[Array, Array]]:
    """The prompts' lengths, the logits of the first completion token, all keys and values.

    Keys and values are [L, N, P, KV, d] and begin with the prompt's first real token; those after
    its last one are nobody's. The result does not depend on how prompts are put together.
    """
    lengths = jnp.sum(prompts.mask, axis=-1, dtype=jnp.int32)
    count, width = prompts.tokens.shape
    places = (jnp.arange(width)[None] + width - lengths[:, None]) % width
    tokens = constrain_batch(jnp.take_along_axis(prompts.tokens, places, axis=1))
    widths = bucket_widths(width)
    batches = next(n for n in range(min(_BATCHES, count), 0, -1) if count % n == 0)
    if len(widths) == 1 or batches == 1:
        return lengths, *networks.actor_prefill(params, tokens, lengths)

    def run(width: int, tokens: Int[Array, "n P"], lengths: Int[Array, " n"]):
        logits, kept = networks.actor_prefill(params, tokens[:, :width], lengths)
        room = ((0, 0), (0, 0), (0, tokens.shape[1] - width), (0, 0), (0, 0))
        return logits, jax.tree.map(lambda x: jnp.pad(x, room), kept)

    def one_batch(some):
        bucket = jnp.searchsorted(jnp.asarray(widths), jnp.max(some[1]))
        bucket = largest_of_shards(bucket)
        return jax.lax.switch(bucket, [partial(run, w) for w in widths], *some)

    order = jnp.argsort(lengths)
    inputs = [x[order].reshape(batches, -1, *x.shape[1:]) for x in (tokens, lengths)]
    logits, kept = jax.lax.map(one_batch, tuple(inputs))
    back = jnp.argsort(order)

    def join(x):  # [batches, L, n, ...] -> [L, N, ...]
        return jnp.take(x.swapaxes(0, 1).reshape(x.shape[1], count, *x.shape[3:]), back, axis=1)

    return lengths, logits.reshape(count, -1)[back], jax.tree.map(join, kept)


def bucket_widths(width: int) -> tuple[int, ...]:
    """Widths that prompts are prefilled at: the whole, its half, quarter, … down to 64 tokens."""
    widths = [width]
    while widths[0] >= 2 * _NARROWEST:
        widths.insert(0, -(-widths[0] // 2))
    return tuple(widths)
