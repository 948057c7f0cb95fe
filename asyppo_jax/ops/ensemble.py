"""What K critics say together: mean, disagreement, the two masks, and who learns from what.

AsyPPO, arXiv 2510.01656, section 4. The masks rank all real completion tokens of the whole rollout
batch, across devices: `jax.lax.sort` under jit sees the global array, however it is sharded.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def value_mean_and_std(
    values: Float[Array, "K B C"],
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """V̄ = mean_k V_k and σ = std_k V_k (population), both constants to any gradient.

    The gradient of a standard deviation at equal values is NaN, so it must not be taken.
    """
    values = jax.lax.stop_gradient(values)
    # Around the first critic: critics that agree to the bit must have σ = 0 to the bit, which the
    # rounding of a mean of 3 or 5 equal numbers would spoil.
    return jnp.mean(values, axis=0), jnp.std(values - values[:1], axis=0)


def disagreement_masks(
    value_std: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    key: PRNGKeyArray,
    *,
    advantage_mask_fraction: float,
    entropy_mask_fraction: float,
) -> tuple[Bool[Array, "B C"], Bool[Array, "B C"]]:
    """I^A and I^H, false = dropped, as `(advantage_mask, entropy_mask)`.

    Of the n real tokens, I^A drops the round(k·n) of lowest σ (the critics agree: little to learn)
    and I^H the round(h·n) of highest σ (they diverge: a noisy state). The counts are exact: ranks,
    not a threshold, and ties are broken by `key`, because a threshold on equal values drops all or
    nothing and breaking ties by position always drops the first rows. While max σ = 0 there is no
    disagreement to rank, and both masks keep every real token. Padding is false in both.
    """
    count = jnp.sum(mask)
    rank = masked_rank(value_std, mask, key)
    num_low = jnp.round(advantage_mask_fraction * count).astype(jnp.int32)
    num_high = jnp.round(entropy_mask_fraction * count).astype(jnp.int32)
    undecided = jnp.max(jnp.where(mask, value_std, 0.0)) == 0
    advantage_mask = mask & (undecided | (rank >= num_low))
    entropy_mask = mask & (undecided | (rank < count - num_high))
    return advantage_mask, entropy_mask


def masked_rank(x: Float[Array, "B C"], mask: Bool[Array, "B C"], key: PRNGKeyArray) -> Array:
    """Ranks 0, 1, … of the real entries in ascending order [B, C]; equal entries in random order.

    Padding takes the last ranks.
    """
    keys = jnp.where(mask, x, jnp.inf).ravel()
    noise = jax.random.bits(key, keys.shape)
    position = jnp.arange(keys.size, dtype=jnp.int32)
    _, _, _, order = jax.lax.sort((~mask.ravel(), keys, noise, position), num_keys=3)
    return jnp.zeros_like(position).at[order].set(position).reshape(x.shape)


def critic_shards(
    key: PRNGKeyArray, *, num_prompts: int, group_size: int, num_critics: int
) -> Bool[Array, "K B"]:
    """Group-level non-overlapping division: `shards[k, b]` is true where critic k learns from b.

    Within every prompt the G responses are split at random, evenly and disjointly: each critic sees
    every prompt, but only G/K of its responses (arXiv 2510.01656, section 4.1).

    Raises:
        ValueError: if `num_critics` does not divide `group_size`.
    """
    if group_size % num_critics:
        raise ValueError(
            f"{num_critics} critics cannot share a group of {group_size} responses evenly; "
            "make group_size a multiple of num_critics"
        )
    owner = jnp.arange(group_size) % num_critics
    keys = jax.random.split(key, num_prompts)
    owners = jax.vmap(lambda k: jax.random.permutation(k, owner))(keys).ravel()
    return owners[None, :] == jnp.arange(num_critics)[:, None]
