"""Sums, means, variances and quantiles over real tokens.

`sequence_mean_sum` and `token_sum` return a sum and its count, for losses of your own: microbatches
and shards give the same number only if both are added up over all of them and divided at the end.
The updates use `ops.aggregation`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.ops.checks import check_arrays, check_fraction


def masked_sum(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Sum of `x` where `mask` is true; masked-out entries are ignored, even if they are NaN."""
    return jnp.sum(jnp.where(mask, x, 0.0))


def masked_mean(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Mean of `x` where `mask` is true; 0 if `mask` is false everywhere."""
    return masked_sum(x, mask) / jnp.maximum(jnp.sum(mask), 1)


def masked_variance(x: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Population variance of `x` where `mask` is true, in two passes (one pass loses digits)."""
    return masked_mean(jnp.square(x - masked_mean(x, mask)), mask)


def inverse_length(mask: Bool[Array, "B C"]) -> Float[Array, "B C"]:
    """The weight of each token in the loss: 1/|o| on real tokens and 0 elsewhere.

    |o| is the number of real tokens of the completion. It includes tokens that the advantage or
    entropy mask drops, because 1/|o| is outside the masks in the objective (arXiv 2510.01656).
    With its weight, a token can be moved to another row or microbatch without changing the loss.
    """
    lengths = jnp.sum(mask, axis=-1, keepdims=True)
    return mask / jnp.maximum(lengths, 1).astype(jnp.float32)


@check_arrays
def sequence_mean_sum(
    x: Float[Array, "B C"], mask: Bool[Array, "B C"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The sum over sequences of (1/|o|) Σ_t x_t, and the number of non-empty sequences."""
    count = jnp.sum(jnp.any(mask, axis=-1)).astype(jnp.float32)
    return masked_sum(inverse_length(mask) * x, mask), count


@check_arrays
def token_sum(
    x: Float[Array, "*S"], mask: Bool[Array, "*S"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The sum over real tokens, and the number of real tokens."""
    return masked_sum(x, mask), jnp.sum(mask).astype(jnp.float32)


@check_arrays
def explained_variance(
    values: Float[Array, "B C"], returns: Float[Array, "B C"], mask: Bool[Array, "B C"]
) -> Float[Array, ""]:
    """1 − Var(R − V) / Var(R) over real tokens: 1 is perfect, 0 is no better than a constant.

    It is 0 if the returns vary by no more than rounding, because there is nothing to explain.
    """
    variance = masked_variance(returns, mask)
    unexplained = masked_variance(returns - values, mask)
    varies = variance > 1e-8 * masked_mean(jnp.square(returns) + jnp.square(values), mask)
    safe = jnp.where(varies, variance, 1.0)
    return jnp.where(varies, 1.0 - unexplained / safe, 0.0)


class VarianceParts(NamedTuple):
    """The parts of a variance over real tokens; they add up to `masked_variance`."""

    between_prompts: Float[Array, ""]
    between_answers: Float[Array, ""]  # of one prompt
    within_answers: Float[Array, ""]

    @property
    def total(self) -> Float[Array, ""]:
        """The variance."""
        return self.between_prompts + self.between_answers + self.within_answers


@check_arrays
def variance_parts(
    x: Float[Array, "B C"], mask: Bool[Array, "B C"], group_size: int
) -> VarianceParts:
    """Var(x) = E (m_p − m)² + E (m_a − m_p)² + E (x − m_a)², with E over real tokens.

    m is the mean over all tokens, m_p over those of a prompt's answers, m_a over those of an
    answer.
    """
    count = jnp.sum(mask, axis=1, keepdims=True).astype(jnp.float32)
    total = jnp.sum(jnp.where(mask, x, 0.0), axis=1, keepdims=True)
    of_answer = total / jnp.maximum(count, 1.0)
    counts, totals = (jnp.sum(y.reshape(-1, group_size), axis=1) for y in (count, total))
    of_prompt = jnp.repeat(totals / jnp.maximum(counts, 1.0), group_size)[:, None]
    of_all = masked_mean(x, mask)
    return VarianceParts(
        masked_mean(jnp.broadcast_to(jnp.square(of_prompt - of_all), x.shape), mask),
        masked_mean(jnp.broadcast_to(jnp.square(of_answer - of_prompt), x.shape), mask),
        masked_mean(jnp.square(x - of_answer), mask),
    )


def masked_quantile(x: Float[Array, "..."], mask: Bool[Array, "..."], q: float) -> Float[Array, ""]:
    """The q-quantile (nearest rank) of `x` where `mask` is true; 0 if `mask` is all false."""
    check_fraction("q", q)
    count = jnp.sum(mask)
    ordered = jnp.sort(jnp.where(mask, x, jnp.inf).ravel())
    index = jnp.round(q * jnp.maximum(count - 1, 0)).astype(jnp.int32)
    return jnp.where(count > 0, ordered[index], 0.0)
