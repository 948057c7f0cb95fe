"""Token rewards, advantages and returns, written for one sequence; callers `jax.vmap` them.

GAE: Schulman et al., arXiv 1506.02438. The group baseline: Shao et al. (GRPO), arXiv 2402.03300.
Completion masks are true on a prefix: up to and including the last real token.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.ops.masked import masked_mean, masked_variance


def place_reward(reward: Float[Array, ""], mask: Bool[Array, " C"]) -> Float[Array, " C"]:
    """r_t: the sequence's reward on its last real token, 0 elsewhere; float32 whatever comes in."""
    last = jnp.sum(mask) - 1
    is_last = (jnp.arange(mask.shape[-1]) == last) & mask
    return jnp.where(is_last, reward.astype(jnp.float32), 0.0)


def gae(
    token_rewards: Float[Array, " C"],
    values: Float[Array, " C"],
    mask: Bool[Array, " C"],
    *,
    gamma: float,
    gae_lambda: float,
) -> Float[Array, " C"]:
    """Generalised advantage estimates.

    δ_t = r_t + γ V(s_{t+1}) − V(s_t);  A_t = Σ_l (γλ)^l δ_{t+l}

    The value after the last real token is 0, and nothing under a false mask enters: neither the
    padding's values nor its rewards. Padding gets 0.
    """
    real_values = jnp.where(mask, values, 0.0)
    next_values = jnp.append(real_values[1:], 0.0)
    deltas = jnp.where(mask, token_rewards, 0.0) + gamma * next_values - real_values
    return discounted_sum(deltas, mask, gamma * gae_lambda)


def lambda_returns(
    advantages: Float[Array, " C"], values: Float[Array, " C"], mask: Bool[Array, " C"]
) -> Float[Array, " C"]:
    """R_t = A_t + V(s_t) on real tokens, 0 on padding: the λ-return when A is GAE's."""
    return jnp.where(mask, advantages + values, 0.0)


def monte_carlo_returns(
    token_rewards: Float[Array, " C"], mask: Bool[Array, " C"], *, gamma: float
) -> Float[Array, " C"]:
    """R_t = Σ_l γ^l r_{t+l} on real tokens, 0 on padding."""
    return discounted_sum(jnp.where(mask, token_rewards, 0.0), mask, gamma)


def discounted_sum(
    x: Float[Array, " C"], mask: Bool[Array, " C"], discount: float
) -> Float[Array, " C"]:
    """y_t = x_t + discount · y_{t+1} on real tokens, 0 on padding; from the last one backwards."""

    def backwards(following, inputs):
        x_t, real = inputs
        y = jnp.where(real, x_t + discount * following, 0.0)
        return y, y

    _, y = jax.lax.scan(backwards, jnp.zeros((), x.dtype), (x, mask), reverse=True)
    return y


def whiten(x: Float[Array, "B C"], mask: Bool[Array, "B C"]) -> Float[Array, "B C"]:
    """(x − mean) / std over all real tokens of the batch; padding gets 0."""
    scale = jax.lax.rsqrt(masked_variance(x, mask) + 1e-8)
    return jnp.where(mask, (x - masked_mean(x, mask)) * scale, 0.0)


def group_advantages(
    rewards: Float[Array, " G"], valid: Bool[Array, " G"], epsilon: float = 1e-6
) -> Float[Array, " G"]:
    """GRPO's (r − mean) / (std + ε) within one group (sample std); invalid rewards get 0.

    arXiv 2402.03300, section 4.1. A group with fewer than two valid rewards has no spread: all 0.
    """
    count = jnp.sum(valid)
    # Around the largest: equal rewards must differ from their mean by 0 to the bit, for ε is small.
    rewards = rewards - jnp.max(jnp.where(valid, rewards, -jnp.inf))
    variance = masked_variance(rewards, valid) * count / jnp.maximum(count - 1, 1)
    centred = rewards - masked_mean(rewards, valid)
    return jnp.where(valid & (count > 1), centred / (jnp.sqrt(variance) + epsilon), 0.0)
