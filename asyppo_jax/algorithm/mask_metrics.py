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
    holds. Ranks of the entropy are within the microbatch, and what independent ranks would give
    there is taken off.
    """
    mask = rows.mask
    lowest, highest = mask & ~rows.advantage_mask, mask & ~rows.entropy_mask
    clipped = jnp.where(
        rows.advantages > 0, ratio > 1 + config.clip_eps_high, ratio < 1 - config.clip_eps_low
    )
    if config.dual_clip:
        clipped |= (rows.advantages < 0) & (ratio > config.dual_clip)
    gradient = jnp.where(clipped, 0.0, rows.length_normalizer * ratio * rows.advantages)
    weighted_entropy = rows.length_normalizer * entropy
    sums = {
        "squared_gradient": masked_sum(jnp.square(gradient), mask),
        "squared_gradient_dropped": masked_sum(jnp.square(gradient), lowest),
        "bonus": masked_sum(weighted_entropy, mask),
        "bonus_dropped": masked_sum(weighted_entropy, highest),
    }
    if config.mask_by != "std":  # what the masks drop says nothing about σ
        return sums
    sums |= _overlap("low", entropy, lowest, mask)
    return sums | _overlap("high", -entropy, highest, mask)


def _overlap(
    name: str, x: Float[Array, "R n"], chosen: Bool[Array, "R n"], mask: Bool[Array, "R n"]
) -> Metrics:
    """How many of the m chosen of n tokens are among the m smallest of `x`, less m² / n.

    m² / n is the expectation for independent ranks. The second number is the largest possible.
    """
    order = jnp.argsort(jnp.where(mask, x, jnp.inf).ravel())
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
    count = jnp.sum(chosen).astype(jnp.float32)
    expected = jnp.square(count) / jnp.maximum(jnp.sum(mask), 1)
    found = jnp.sum(chosen & (rank.reshape(x.shape) < count)).astype(jnp.float32)
    return {f"{name}_overlap": found - expected, f"{name}_possible": count - expected}


def mask_metrics(sums: Metrics) -> Metrics:
    """The metrics of an update from `mask_sums` of its minibatches [E]."""

    def share(part: str, total: str) -> Array:
        return jnp.sum(sums[part]) / jnp.maximum(jnp.sum(sums[total]), 1e-12)

    metrics = {
        # Of the squared norm of the gradient with respect to log-probs.
        "actor/advantage_mask_gradient": share("squared_gradient_dropped", "squared_gradient"),
        # Of the entropy bonus.
        "actor/entropy_mask_bonus": share("bonus_dropped", "bonus"),
    }
    if "low_overlap" not in sums:
        return metrics
    return metrics | {
        # 1: the tokens with the lowest (highest) σ are those with the lowest (highest) entropy; 0:
        # as many of them as with independent ranks.
        "ensemble/low_std_low_entropy": share("low_overlap", "low_possible"),
        "ensemble/high_std_high_entropy": share("high_overlap", "high_possible"),
    }
