"""Losses of the critics per token, beside the plain squared error of `ops.losses`.

R is the target, z a head's output and V its value (`ops.value_heads`). R is data: callers that
differentiate with respect to it stop the gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.ops.checks import check_fraction, check_not_negative, check_positive
from asyppo_jax.ops.value_heads import ValueHead


def clipped_squared_error(
    values: Float[Array, "..."],
    old_values: Float[Array, "..."],
    returns: Float[Array, "..."],
    *,
    clip_eps: float,
) -> Float[Array, "..."]:
    """max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²): PPO's value clipping.

    Engstrom et al., arXiv 2005.12729, section 3.
    """
    check_not_negative("clip_eps", clip_eps)
    clipped = jnp.clip(values, old_values - clip_eps, old_values + clip_eps)
    return jnp.maximum(jnp.square(values - returns), jnp.square(clipped - returns))


def binary_cross_entropy(
    logits: Float[Array, "..."], targets: Float[Array, "..."]
) -> Float[Array, "..."]:
    """−y log σ(z) − (1 − y) log(1 − σ(z)) = softplus(z) − y z, for targets y in [0, 1]."""
    return jax.nn.softplus(logits) - targets * logits


def cross_entropy(
    logits: Float[Array, "... M"], targets: Float[Array, "... M"]
) -> Float[Array, "..."]:
    """−Σ_m p_m log softmax(z)_m."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def two_hot(returns: Float[Array, "..."], head: ValueHead) -> Float[Array, "... M"]:
    """The distribution over the two nearest bins whose mean is R (arXiv 2301.04104, section 3).

    R is clipped to the range of the bins.
    """
    width = (head.high - head.low) / (head.bins - 1)
    position = jnp.clip((returns - head.low) / width, 0, head.bins - 1)
    distance = jnp.abs(position[..., None] - _last_axis(jnp.arange(head.bins), returns.ndim))
    return jnp.maximum(1 - distance, 0.0)


def hl_gauss(returns: Float[Array, "..."], head: ValueHead, *, std: float) -> Float[Array, "... M"]:
    """The mass of N(R, std · bin width) in each bin, normalised: HL-Gauss, arXiv 2403.03950, eq. 8.

    R is clipped to the range of the bins.
    """
    check_positive("std", std)
    width = (head.high - head.low) / (head.bins - 1)
    edges = np.append(head.centers - width / 2, head.centers[-1] + width / 2)
    returns = jnp.clip(returns, head.low, head.high)
    distance = _last_axis(jnp.asarray(edges), returns.ndim) - returns[..., None]
    scaled = distance / (np.sqrt(2.0) * std * width)
    cumulative = jax.scipy.special.erf(scaled)
    mass = jnp.diff(cumulative, axis=-1)
    return mass / (cumulative[..., -1:] - cumulative[..., :1])


def sparse_positions(mask: Bool[Array, "B C"], fractions: tuple[float, ...]) -> Bool[Array, "B C"]:
    """True at the positions round(a · (L − 1)) of each answer of L tokens, a in `fractions`.

    SP3O, arXiv 2609.18708: never the last token, unless the answer has only one.
    """
    lengths = jnp.sum(mask, axis=1)
    last = jnp.maximum(lengths - 2, 0)
    chosen = jnp.zeros(mask.shape, bool)
    column = jnp.arange(mask.shape[1])[None]
    for fraction in fractions:
        check_fraction("a fraction", fraction)
        at = jnp.minimum(jnp.round(fraction * (lengths - 1)).astype(jnp.int32), last)
        chosen |= column == at[:, None]
    return chosen & mask


def noise_weights(
    rewards: Float[Array, " B"], valid: Bool[Array, " B"], group_size: int
) -> Float[Array, " B"]:
    """The weight of each answer in the critics' loss: EasyPPO, arXiv 2609.36802.

    w_p ∝ 1 / max(σ_p, 1 / (2 √G)) with the population std σ_p of the prompt's valid rewards (in
    [0, 1]); the mean over prompts with a valid reward is 1.
    """
    rewards, valid = rewards.reshape(-1, group_size), valid.reshape(-1, group_size)
    count = jnp.maximum(jnp.sum(valid, axis=1, keepdims=True), 1)
    mean = jnp.sum(jnp.where(valid, rewards, 0.0), axis=1, keepdims=True) / count
    squares = jnp.where(valid, jnp.square(rewards - mean), 0.0)
    std = jnp.sqrt(jnp.sum(squares, axis=1) / count[:, 0])
    scored = jnp.any(valid, axis=1)
    weights = jnp.where(scored, 1.0 / jnp.maximum(std, 0.5 / np.sqrt(group_size)), 0.0)
    mean_weight = jnp.sum(weights) / jnp.maximum(jnp.sum(scored), 1)
    return jnp.repeat(weights / jnp.maximum(mean_weight, 1e-12), group_size)


def _last_axis(x: Float[Array, " M"] | Int[Array, " M"], ndim: int) -> Array:
    """`x` with `ndim` axes of size 1 in front."""
    return x.reshape(*(1,) * ndim, -1)
