"""What the two masks take from the actor's update, and whether σ ranks tokens as entropy does."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.algorithm.batching.rows import UpdateRows
from asyppo_jax.config import AlgorithmConfig
from asyppo_jax.ops.masked import masked_sum
from asyppo_jax.types import Metrics


def mask_sums(
    ratio: Float[Array, "R n"],
    entropy: Float[Array, "R n"],
    rows: UpdateRows,
    config: AlgorithmConfig,
) -> Metrics:
    """Sums over the real tokens of a microbatch, of which `mask_metrics` makes metrics.

    The gradient of the clipped objective with respect to log π(token) is n ρ A, or 0 where the clip
    holds. Ranks of the entropy are within the microbatch.
    """
    mask = rows.mask
    low_std, high_std = mask & ~rows.advantage_mask, mask & ~rows.entropy_mask
    clipped = jnp.where(
        rows.advantages > 0, ratio > 1 + config.clip_eps_high, ratio < 1 - config.clip_eps_low
    )
    gradient = jnp.where(clipped, 0.0, rows.length_normalizer * ratio * rows.advantages)
    weighted_entropy = rows.length_normalizer * entropy
    return {
        "squared_gradient": masked_sum(jnp.square(gradient), mask),
        "squared_gradient_dropped": masked_sum(jnp.square(gradient), low_std),
        "bonus": masked_sum(weighted_entropy, mask),
        "bonus_dropped": masked_sum(weighted_entropy, high_std),
        "low_std": jnp.sum(low_std).astype(jnp.float32),
        "high_std": jnp.sum(high_std).astype(jnp.float32),
        "low_std_and_entropy": _overlap(entropy, low_std, mask),
        "high_std_and_entropy": _overlap(-entropy, high_std, mask),
    }


def _overlap(
    x: Float[Array, "R n"], chosen: Bool[Array, "R n"], mask: Bool[Array, "R n"]
) -> Float[Array, ""]:
    """How many of the m chosen tokens are among the m smallest of `x`."""
    ordered = jnp.sort(jnp.where(mask, x, jnp.inf).ravel())
    count = jnp.sum(chosen)
    threshold = ordered[jnp.maximum(count - 1, 0)]
    return jnp.sum(chosen & (x <= threshold)).astype(jnp.float32)


def mask_metrics(sums: Metrics) -> Metrics:
    """The metrics of an update from `mask_sums` of its minibatches [E].

    With independent ranks an overlap is the mask's fraction, on average.
    """

    def share(part: str, total: str) -> Array:
        return jnp.sum(sums[part]) / jnp.maximum(jnp.sum(sums[total]), 1e-12)

    return {
        # Of the squared norm of the gradient with respect to log-probs.
        "actor/advantage_mask_gradient": share("squared_gradient_dropped", "squared_gradient"),
        # Of the entropy bonus.
        "actor/entropy_mask_bonus": share("bonus_dropped", "bonus"),
        # Of the tokens with the lowest (highest) σ, those that also have the lowest (highest)
        # entropy.
        "ensemble/low_std_low_entropy": share("low_std_and_entropy", "low_std"),
        "ensemble/high_std_high_entropy": share("high_std_and_entropy", "high_std"),
    }
