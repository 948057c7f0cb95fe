"""Drawing a token from logits: temperature, truncation, and one uniform number per row.

Truncation works on weights w = exp(x − max x), x = logits / temperature: the likeliest token has
weight 1, and tokens below a threshold are dropped. The thresholds of top-k and top-p are found by
bisection over the bits of a float, which is exact after 30 iterations and needs no sort.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.config import Truncation


@dataclass(frozen=True, kw_only=True)
class DecodingOptions(Truncation):
    """What the decoding program is compiled for."""

    group_size: int  # G
    max_completion_length: int  # C
    stop_ids: tuple[int, ...]  # a completion ends with the first of these, which belongs to it
    pad_id: int
    slots: int = 0  # sequences decoded at the same time; 0: all
    sampled_log_probs: bool = False  # whether the rollout has them as well
    entropy: bool = False  # whether the rollout has the plain policy's, per token


class Draw(NamedTuple):
    """One token per row."""

    token: Int[Array, " B"]
    log_prob: Float[Array, " B"]  # of the plain policy, softmax(logits)
    sampled_log_prob: Float[Array, " B"]  # of the distribution that the token was drawn from
    entropy: Float[Array, " B"] | None  # of the plain policy (nats); only with `options.entropy`


def draw(
    logits: Float[Array, "B V"], uniform: Float[Array, " B"], options: DecodingOptions
) -> Draw:
    """One token per row from softmax(logits / temperature) after top-k, top-p and min-p.

    `log_prob` is log π(token) of the plain policy (temperature 1, no truncation), because PPO's
    ratio compares plain policies; `entropy` is that policy's, −Σ_v π_v log π_v. A greedy token is
    the likeliest one, the first of them on a tie; its `sampled_log_prob` is 0.
    """
    highest = jnp.max(logits, axis=-1, keepdims=True)
    plain = jnp.exp(logits - highest)
    all_plain = jnp.sum(plain, axis=-1)
    if options.temperature == 0:
        # Not argmax: on a CPU it takes ten times as long as these two passes.
        tokens = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None]
        token = jnp.min(jnp.where(logits == highest, tokens, logits.shape[-1]), axis=-1)
        token = jnp.minimum(token, logits.shape[-1] - 1)  # a row of NaN has no maximum
        sampled = jnp.zeros_like(uniform)
    else:
        cooled = options.temperature != 1
        weights = jnp.exp((logits - highest) / options.temperature) if cooled else plain
        weights = truncate(weights, options)
        token, total = inverse_cdf(weights, uniform)
        chosen = jnp.take_along_axis(weights, token[:, None], axis=-1)[:, 0]
        sampled = jnp.log(chosen) - jnp.log(total)
        if weights is plain:  # neither cooled nor truncated
            all_plain = total
    chosen = jnp.take_along_axis(logits - highest, token[:, None], axis=-1)[:, 0]
    entropy = _entropy(logits - highest, plain, all_plain) if options.entropy else None
    return Draw(token, chosen - jnp.log(all_plain), sampled, entropy)


def _entropy(
    shifted: Float[Array, "B V"], weights: Float[Array, "B V"], total: Float[Array, " B"]
) -> Float[Array, " B"]:
    """log Σw − Σ w x / Σw for x = logits − max x and w = exp(x); tokens of logit −inf add 0."""
    weighted = jnp.where(weights > 0, weights * shifted, 0.0)
    return jnp.log(total) - jnp.sum(weighted, axis=-1) / total


def truncate(weights: Float[Array, "B V"], options: DecodingOptions) -> Float[Array, "B V"]:
    """The weights after top-k, the nucleus and min-p in this order; dropped tokens have 0.

    The nucleus (arXiv 1904.09751) is the smallest set of likeliest tokens whose probability reaches
    `top_p`. Min-p (arXiv 2407.01082) keeps tokens with at least `min_p` times the probability of
    the likeliest one. The likeliest token is always kept, and ties of a kept token are kept.
    """
    if 0 < options.top_k < weights.shape[-1]:
        count = lambda kept: jnp.sum(kept, axis=-1) >= options.top_k  # noqa: E731
        weights = _keep_likeliest(weights, count)
    if options.top_p < 1:
        needed = options.top_p * jnp.sum(weights, axis=-1)
        mass = lambda kept: jnp.sum(jnp.where(kept, weights, 0), axis=-1) >= needed  # noqa: E731
        weights = _keep_likeliest(weights, mass)
    if options.min_p > 0:
        weights = jnp.where(weights >= options.min_p, weights, 0)
    return weights


def _keep_likeliest(weights: Float[Array, "B V"], suffices) -> Float[Array, "B V"]:
    """The weights, 0 below the largest threshold at which the kept tokens suffice.

    Positive floats are ordered as their bits are, so the threshold's bits are found one by one.
    """

    def kept(bits: Int[Array, " B"]) -> Bool[Array, "B V"]:
        return weights >= jax.lax.bitcast_convert_type(bits, jnp.float32)[:, None]

    def halve(i, low):
        middle = low + (jnp.int32(1) << (29 - i))
        # Not above 1.0, the weight of the likeliest token: beyond it no token is kept.
        return jnp.where(suffices(kept(middle)), middle, low)

    bits = jax.lax.fori_loop(0, 30, halve, jnp.zeros(weights.shape[0], jnp.int32))
    return jnp.where(kept(bits), weights, 0)


def inverse_cdf(
    weights: Float[Array, "B V"], uniform: Float[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """The token at `uniform` in [0, 1) of the cumulative weights, and the sum of the weights.

    One uniform number per row instead of Gumbel noise for the vocabulary. Two short searches (for a
    block, then for an entry in it) instead of one long cumulative sum with growing rounding errors.
    """
    vocabulary = weights.shape[-1]
    size = 2 ** -(-(vocabulary - 1).bit_length() // 2)  # about √V: both searches are short
    padded = jnp.pad(weights, ((0, 0), (0, -vocabulary % size)))
    blocks = padded.reshape(weights.shape[0], -1, size)
    sums = jnp.sum(blocks, axis=-1)
    total = jnp.sum(sums, axis=-1)
    target = uniform * total
    block, below = _search(sums, target)
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    entry, _ = _search(inside, target - below)
    return (block * size + entry).astype(jnp.int32), total


def _search(
    weights: Float[Array, "B n"], target: Float[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """The first entry of positive weight whose cumulative sum exceeds `target`; the sum before it.

    If rounding leaves no such entry, the last one of positive weight. An entry of weight 0, which a
    truncated token has, is never returned.
    """
    cumulative = jnp.cumsum(weights, axis=-1)
    hit = (cumulative > target[:, None]) & (weights > 0)
    last = weights.shape[-1] - 1 - jnp.argmax(jnp.flip(weights > 0, axis=-1), axis=-1)
    index = jnp.where(jnp.any(hit, axis=-1), jnp.argmax(hit, axis=-1), last)
    taken = jnp.take_along_axis(cumulative - weights, index[:, None], axis=-1)[:, 0]
    return index, taken
