"""The critic ensemble: its value, disagreement, the two token masks, and each critic's data shard.

AsyPPO, arXiv 2510.01656, section 4. The masks rank all real completion tokens of the rollout
batch, across devices: `jax.lax.sort` under jit sorts the global array, whatever its sharding.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from asyppo_jax.ops.checks import check_arrays, check_choice, check_fraction

ValueAggregation = Literal["mean", "min"]
MaskBy = Literal["std", "entropy", "random"]
CriticData = Literal["responses", "prompts", "all"]


@check_arrays
def value_mean_and_std(
    values: Float[Array, "K B C"],
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """V̄ = mean_k V_k and σ = std_k V_k (population) over the critics, without gradients.

    Gradients are stopped because the gradient of a standard deviation is NaN at equal values.
    """
    values = jax.lax.stop_gradient(values)
    # Subtracting the first critic's values makes σ exactly 0 where all critics agree exactly;
    # otherwise the mean of 3 or 5 equal numbers is rounded, and σ is not exactly 0.
    return jnp.mean(values, axis=0), jnp.std(values - values[:1], axis=0)


@check_arrays
def ensemble_value(
    values: Float[Array, "K B C"], aggregation: ValueAggregation = "mean"
) -> Float[Array, "B C"]:
    """The value that the critics give together, without gradients: V̄ = mean_k V_k, or min_k V_k.

    The mean is AsyPPO's (arXiv 2510.01656, section 4). The minimum is that of clipped double
    Q-learning (arXiv 1802.09477), against overestimation.

    Raises:
        ValueError: there is no such aggregation.
    """
    check_choice("aggregation", aggregation, get_args(ValueAggregation))
    values = jax.lax.stop_gradient(values)
    return jnp.min(values, axis=0) if aggregation == "min" else jnp.mean(values, axis=0)


def mask_scores(
    value_std: Float[Array, "B C"], entropy: Float[Array, "B C"] | None, mask_by: MaskBy = "std"
) -> Float[Array, "B C"]:
    """What `disagreement_masks` ranks tokens by: σ_t, H(π(·|s_t)), or 1 at every token.

    σ is AsyPPO's choice (arXiv 2510.01656, section 4), which the paper compares with the entropy.
    If all scores are 1, ties decide every rank, so the masks are random and of the same size.

    Raises:
        ValueError: there is no such choice, or the entropy is needed and not given.
    """
    check_choice("mask_by", mask_by, get_args(MaskBy))
    if mask_by == "random":
        return jnp.ones_like(value_std)
    if mask_by == "std":
        return value_std
    if entropy is None:
        raise ValueError("mask_by is 'entropy', but no entropy is given; give it, or use 'std'")
    return jax.lax.stop_gradient(entropy)


@check_arrays
def disagreement_masks(
    value_std: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    key: PRNGKeyArray,
    *,
    advantage_mask_fraction: float,
    entropy_mask_fraction: float,
) -> tuple[Bool[Array, "B C"], Bool[Array, "B C"]]:
    """The masks I^A and I^H of AsyPPO as `(advantage_mask, entropy_mask)`; false means dropped.

    I^A drops the given fraction of real tokens with the lowest σ: the critics agree, so there is
    little to learn. I^H drops the given fraction with the highest σ: the critics disagree, so the
    state is noisy. Both counts are rounded to integers. Padding is false in both masks.

    The counts are exact, because tokens are dropped by rank. A threshold would drop all or none of
    the tokens with equal σ. `key` breaks ties at random, because breaking them by position would
    always drop tokens of the first sequences. If max σ = 0 there is nothing to rank, and both masks
    keep every real token.

    Other scores than σ, of 0 or more, may take its place (`mask_scores`).

    Raises:
        ValueError: a fraction is a Python number outside [0, 1).
    """
    check_fraction("advantage_mask_fraction", advantage_mask_fraction, below_one=True)
    check_fraction("entropy_mask_fraction", entropy_mask_fraction, below_one=True)
    count = jnp.sum(mask)
    rank = masked_rank(value_std, mask, key)
    num_lowest = jnp.round(advantage_mask_fraction * count).astype(jnp.int32)
    num_highest = jnp.round(entropy_mask_fraction * count).astype(jnp.int32)
    all_agree = jnp.max(jnp.where(mask, value_std, 0.0)) == 0
    advantage_mask = mask & (all_agree | (rank >= num_lowest))
    entropy_mask = mask & (all_agree | (rank < count - num_highest))
    return advantage_mask, entropy_mask


def masked_rank(x: Float[Array, "B C"], mask: Bool[Array, "B C"], key: PRNGKeyArray) -> Array:
    """The rank of each entry, shape [B, C]: 0 is the smallest real entry; ties are random.

    Padding gets the last ranks.
    """
    real_entries = jnp.where(mask, x, jnp.inf).ravel()
    tie_breaks = jax.random.bits(key, real_entries.shape)
    position = jnp.arange(real_entries.size, dtype=jnp.int32)
    operands = (~mask.ravel(), real_entries, tie_breaks, position)
    _, _, _, order = jax.lax.sort(operands, num_keys=3)
    return jnp.zeros_like(position).at[order].set(position).reshape(x.shape)


def critic_shards(
    key: PRNGKeyArray,
    *,
    num_prompts: int,
    group_size: int,
    num_critics: int,
    critic_data: CriticData = "responses",
) -> Bool[Array, "K B"]:
    """Which responses each critic learns from: `shards[k, b]` is true if critic k trains on b.

    "responses" is the paper's group-level non-overlapping division (arXiv 2510.01656, section 4.1).
    The G responses to each prompt are split at random into K disjoint shards of equal size. Every
    critic sees every prompt, but only G/K of its responses.

    The paper compares it with two others. "prompts": the N prompts are split at random into K
    disjoint shards of equal size, and a critic sees all responses to N/K prompts. "all": no
    division, every critic sees all responses. All shards of a choice have the same size.

    Raises:
        ValueError: there is no such choice, or `num_critics` does not divide `group_size`, or with
            "prompts" `num_prompts`.
    """
    check_choice("critic_data", critic_data, get_args(CriticData))
    if critic_data == "all":
        return jnp.ones((num_critics, num_prompts * group_size), bool)
    if critic_data == "prompts":
        critic_of_row = jnp.repeat(_divided_prompts(key, num_prompts, num_critics), group_size)
        return critic_of_row[None, :] == jnp.arange(num_critics)[:, None]
    if group_size % num_critics:
        raise ValueError(
            f"{num_critics} critics cannot split a group of {group_size} responses evenly; "
            "make group_size a multiple of num_critics"
        )
    critic_of_response = jnp.arange(group_size) % num_critics
    prompt_keys = jax.random.split(key, num_prompts)
    permute = jax.vmap(lambda prompt_key: jax.random.permutation(prompt_key, critic_of_response))
    critic_of_row = permute(prompt_keys).ravel()
    return critic_of_row[None, :] == jnp.arange(num_critics)[:, None]


def _divided_prompts(key: PRNGKeyArray, num_prompts: int, num_critics: int) -> Int[Array, " N"]:
    """The critic of each prompt; each critic has equally many."""
    if num_prompts % num_critics:
        raise ValueError(
            f"{num_critics} critics cannot split {num_prompts} prompts evenly; make num_prompts a "
            "multiple of num_critics"
        )
    return jax.random.permutation(key, jnp.arange(num_prompts) % num_critics)
