"""Reductions over real positions only: a sum and its denominator stay apart until the end.

Gradient accumulation, packing and sharding give the same number only if every part adds up sums and
counts and divides once; so the functions here that matter to a loss return both.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_sum(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Sum of `x` where `mask` is true; what lies under a false mask never enters, NaN included."""
    return jnp.sum(jnp.where(mask, x, 0.0))


def masked_mean(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Mean of `x` where `mask` is true; 0 where nothing is."""
    return masked_sum(x, mask) / jnp.maximum(jnp.sum(mask), 1)


def masked_variance(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Population variance of `x` where `mask` is true, by two passes (one pass cancels digits)."""
    return masked_mean(jnp.square(x - masked_mean(x, mask)), mask)


def sequence_weights(mask: Bool[Array, "B C"]) -> Float[Array, "B C"]:
    """1/|o| on the real tokens of each sequence and 0 elsewhere.

    |o| counts all tokens of `mask`, the completion's real ones: those that a method dropped from a
    term count too, because the 1/|o| of the objective stands outside its masks (arXiv 2510.01656).
    A token that carries its weight may lie anywhere: packed, in another microbatch, elsewhere.
    """
    lengths = jnp.sum(mask, axis=-1, keepdims=True)
    return mask / jnp.maximum(lengths, 1).astype(jnp.float32)


def sequence_mean_sum(
    x: Float[Array, "B C"], mask: Bool[Array, "B C"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The sum over sequences of (1/|o|) Σ_t x_t, and the number of sequences with a real token."""
    count = jnp.sum(jnp.any(mask, axis=-1)).astype(jnp.float32)
    return masked_sum(sequence_weights(mask) * x, mask), count


def token_sum(
    x: Float[Array, "..."], mask: Bool[Array, "..."]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The sum over real tokens, and their number."""
    return masked_sum(x, mask), jnp.sum(mask).astype(jnp.float32)


def explained_variance(
    values: Float[Array, "B C"], returns: Float[Array, "B C"], mask: Bool[Array, "B C"]
) -> Float[Array, ""]:
    """1 − Var(R − V) / Var(R) over real tokens: 1 is perfect, 0 is no better than a constant.

    It is 0 where the returns do not vary beyond rounding: there is nothing to explain.
    """
    variance = masked_variance(returns, mask)
    unexplained = masked_variance(returns - values, mask)
    varies = variance > 1e-8 * masked_mean(jnp.square(returns) + jnp.square(values), mask)
    safe = jnp.where(varies, variance, 1.0)
    return jnp.where(varies, 1.0 - unexplained / safe, 0.0)


def masked_quantile(x: Float[Array, "..."], mask: Bool[Array, "..."], q: float) -> Float[Array, ""]:
    """The q-quantile (nearest rank) of `x` where `mask` is true; 0 where nothing is."""
    count = jnp.sum(mask)
    ordered = jnp.sort(jnp.where(mask, x, jnp.inf).ravel())
    index = jnp.round(q * jnp.maximum(count - 1, 0)).astype(jnp.int32)
    return jnp.where(count > 0, ordered[index], 0.0)
