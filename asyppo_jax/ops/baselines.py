"""What the rewards of other answers say about an answer, without its own reward."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from asyppo_jax.ops.checks import check_arrays

AnyArray = TypeVar("AnyArray", jax.Array, np.ndarray)


def has_spread(rewards: AnyArray, valid: AnyArray, group_size: int) -> AnyArray:
    """Per group: its valid rewards are not all equal; for rewards 0 and 1, 0 < right answers < G.

    A group of G answers whose valid rewards are all equal has advantages of 0 in GRPO and DAPO.
    `rewards` and `valid` [N · G] are NumPy's or JAX's; the result [N] is of the same kind.
    """
    rewards, valid = rewards.reshape(-1, group_size), valid.reshape(-1, group_size)
    highest: Any = rewards.max(axis=1, where=valid, initial=-np.inf)
    return highest > rewards.min(axis=1, where=valid, initial=np.inf)


@check_arrays
def group_mean_of_others(
    rewards: Float[Array, " B"], valid: Bool[Array, " B"], group_size: int
) -> Float[Array, " B"]:
    """b_i = Σ_{j≠i} r_j / (G − 1) within each group: the leave-one-out mean of RLOO (2402.14740).

    Invalid rewards do not count. Without a valid other answer it is the mean over the other groups.
    """
    rewards, valid, others = _groups(rewards, valid, group_size)
    count, total = _sums_of_others(rewards, valid)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), others[:, None]).reshape(-1)


@check_arrays
def shrunken_group_mean(
    rewards: Float[Array, " B"], valid: Bool[Array, " B"], group_size: int
) -> Float[Array, " B"]:
    """The leave-one-out mean b_i, shrunken to the mean reward m of the other groups.

    m + ρ (b_i − m), ρ = τ² / (τ² + s² / n)

    with τ² the variance of the groups' true means, s² the variance within groups, and n the number
    of other answers: the best linear estimate of a group's mean from n of its rewards (James and
    Stein, 1961; Efron and Morris, 1973). τ² and s² are estimated from the other groups, so the
    result does not depend on the answer's own reward. With fewer than three groups ρ is 1.
    """
    rewards, valid, mean_others = _groups(rewards, valid, group_size)
    count, total = _sums_of_others(rewards, valid)
    mean_of_others = jnp.where(count > 0, total / jnp.maximum(count, 1), mean_others[:, None])
    size = jnp.sum(valid, axis=1)
    mean = jnp.sum(rewards, axis=1) / jnp.maximum(size, 1)
    squares = jnp.sum(jnp.where(valid, jnp.square(rewards - mean[:, None]), 0.0), axis=1)
    used = (size > 0).astype(jnp.float32)
    num_groups = _without_own(used)
    within = _without_own(squares) / jnp.maximum(_without_own(jnp.maximum(size - 1.0, 0.0)), 1.0)
    # Var(group means) = τ² + s² E[1/n]; each group leaves its own mean out.
    sum_1, sum_2 = _without_own(used * mean), _without_own(used * jnp.square(mean))
    variance = (sum_2 - jnp.square(sum_1) / jnp.maximum(num_groups, 1)) / jnp.maximum(
        num_groups - 1, 1
    )
    inverse_size = _without_own(used / jnp.maximum(size, 1)) / jnp.maximum(num_groups, 1)
    between = jnp.maximum(variance - within * inverse_size, 0.0)[:, None]
    noise = within[:, None] / jnp.maximum(count, 1)
    known = (num_groups >= 2)[:, None] & (between + noise > 0)
    shrinkage = jnp.where(known, between / jnp.where(known, between + noise, 1.0), 1.0)
    shrinkage = jnp.where(count > 0, shrinkage, 0.0)
    return (mean_others[:, None] + shrinkage * (mean_of_others - mean_others[:, None])).reshape(-1)


def _groups(
    rewards: Float[Array, " B"], valid: Bool[Array, " B"], group_size: int
) -> tuple[Float[Array, "N G"], Bool[Array, "N G"], Float[Array, " N"]]:
    """Rewards (0 where invalid) and validity by group, and the mean reward of all other groups."""
    if group_size <= 0 or rewards.size % group_size:
        raise ValueError(
            f"rewards have shape {rewards.shape} and valid {valid.shape}, but group_size is "
            f"{group_size}; give both as [N * group_size], all answers of each prompt in a row"
        )
    valid = valid.reshape(-1, group_size)
    rewards = jnp.where(valid, rewards.reshape(-1, group_size), 0.0)
    count = _without_own(jnp.sum(valid, axis=1).astype(jnp.float32))
    mean_others = _without_own(jnp.sum(rewards, axis=1)) / jnp.maximum(count, 1.0)
    return rewards, valid, mean_others


def _sums_of_others(
    rewards: Float[Array, "N G"], valid: Bool[Array, "N G"]
) -> tuple[Float[Array, "N G"], Float[Array, "N G"]]:
    """The number and the sum of the valid rewards of each group without each answer's own."""
    count = jnp.sum(valid, axis=1, keepdims=True) - valid.astype(jnp.float32)
    return count, jnp.sum(rewards, axis=1, keepdims=True) - rewards


def _without_own(x: Float[Array, " N"]) -> Float[Array, " N"]:
    """The sum over all other groups."""
    return jnp.sum(x) - x
