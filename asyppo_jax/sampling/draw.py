"""Drawing a token from logits: temperature, truncations, and one uniform a row.

Truncations work on weights w = exp(x − max x), x = logits / temperature: the likeliest token weighs
1, and a threshold says which tokens are kept. Thresholds of top-k and top-p are found by halving an
interval of floats, which is exact after 31 turns and sorts nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@dataclass(frozen=True)
class DecodingOptions:
    """What the decoding program is compiled for."""

    group_size: int  # G
    max_completion_length: int  # C
    temperature: float  # 0: greedy
    top_k: int  # 0: off
    top_p: float  # 1: off
    stop_ids: tuple[int, ...]  # a row ends with the first of these, which belongs to it
    pad_id: int
    slots: int = 0  # rows decoded at one time; 0: all
    min_p: float = 0.0  # of the likeliest token's probability; 0: off
    sampled_log_probs: bool = False  # whether the rollout holds them, too

    @property
    def truncates(self) -> bool:
        """Whether some tokens of a sampled distribution may get probability 0."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


class Draw(NamedTuple):
    """One token a row."""

    token: Int[Array, " B"]
    log_prob: Float[Array, " B"]  # of the plain policy, softmax(logits)
    sampled_log_prob: Float[Array, " B"]  # of the distribution that the token was drawn from


def draw(
    logits: Float[Array, "B V"], uniform: Float[Array, " B"], options: DecodingOptions
) -> Draw:
    """A token a row from softmax(logits / temperature) after top-k, top-p and min-p.

    `log_prob` is the plain policy's log π(token), whatever temperature or truncation drew it: the
    ratio of PPO is one of policies. A greedy token is the likeliest, the first of them on a tie,
    and its `sampled_log_prob` is 0.
    """
    highest = jnp.max(logits, axis=-1, keepdims=True)
    plain = jnp.exp(logits - highest)
    all_plain = jnp.sum(plain, axis=-1)
    if options.temperature == 0:
        # Not argmax: on a CPU it costs ten times as much as these two passes.
        places = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None]
        token = jnp.min(jnp.where(logits == highest, places, logits.shape[-1]), axis=-1)
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
    return Draw(token, chosen - jnp.log(all_plain), sampled)


def truncate(weights: Float[Array, "B V"], options: DecodingOptions) -> Float[Array, "B V"]:
    """The weights with 0 outside the k likeliest, then the nucleus, then what min-p keeps.

    The nucleus (arXiv 1904.09751) is the smallest set of likeliest tokens whose probability reaches
    `top_p`; min-p (arXiv 2407.01082) keeps tokens of at least `min_p` times the likeliest's
    probability. The likeliest token is always kept, and with a kept token those that tie with it.
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
    """0 below the largest threshold whose tokens suffice.

    Floats of one sign are in the order of their bits, so the threshold's bits are found one by one.
    """

    def kept(bits: Int[Array, " B"]) -> Bool[Array, "B V"]:
        return weights >= jax.lax.bitcast_convert_type(bits, jnp.float32)[:, None]

    def halve(i, low):
        middle = low + (jnp.int32(1) << (29 - i))
        # Up to 1.0, the likeliest token's weight: beyond it nothing is kept, which never suffices.
        return jnp.where(suffices(kept(middle)), middle, low)

    bits = jax.lax.fori_loop(0, 30, halve, jnp.zeros(weights.shape[0], jnp.int32))
    return jnp.where(kept(bits), weights, 0)


def inverse_cdf(
    weights: Float[Array, "B V"], uniform: Float[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """The token whose share of the cumulative weights holds `uniform` in [0, 1); the weights' sum.

    One uniform a row instead of a Gumbel for every entry of the vocabulary, and two short searches
    (a block, then an entry in it) instead of one long cumulative sum, whose rounding would grow.
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
    """The first entry of positive weight whose cumulative sum passes `target`; the sum below it.

    Rounding may leave no such entry; then it is the last of positive weight. An entry of weight 0
    (a truncated token) is never found.
    """
    cumulative = jnp.cumsum(weights, axis=-1)
    hit = (cumulative > target[:, None]) & (weights > 0)
    last = weights.shape[-1] - 1 - jnp.argmax(jnp.flip(weights > 0, axis=-1), axis=-1)
    index = jnp.where(jnp.any(hit, axis=-1), jnp.argmax(hit, axis=-1), last)
    taken = jnp.take_along_axis(cumulative - weights, index[:, None], axis=-1)[:, 0]
    return index, taken
