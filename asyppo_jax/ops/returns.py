"""Token rewards, advantages and returns of one sequence; callers batch them with `jax.vmap`.

GAE: Schulman et al., arXiv 1506.02438. Group advantages: Shao et al. (GRPO), arXiv 2402.03300.
Leave-one-out advantages: Ahmadian et al. (RLOO), arXiv 2402.14740. Overlong penalty: Yu et al.
(DAPO), arXiv 2503.14476.
A completion mask is true up to and including the last real token and false after it.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.ops.checks import check_arrays, check_choice, check_fraction, check_positive
from asyppo_jax.ops.masked import masked_mean, masked_variance


@check_arrays
def place_reward(reward: Float[Array, ""], mask: Bool[Array, " C"]) -> Float[Array, " C"]:
    """Token rewards r_t: the sequence's reward on its last real token, else 0; always float32."""
    last = jnp.sum(mask) - 1
    is_last = (jnp.arange(mask.shape[-1]) == last) & mask
    return jnp.where(is_last, reward.astype(jnp.float32), 0.0)


@check_arrays
def gae(
    token_rewards: Float[Array, " C"],
    values: Float[Array, " C"],
    mask: Bool[Array, " C"],
    *,
    gamma: float,
    gae_lambda: float | Float[Array, ""],
) -> Float[Array, " C"]:
    """Generalised advantage estimates A_t of one sequence, 0 on padding.

    For [B, C]: `jax.vmap(lambda r, v, m: gae(r, v, m, gamma=1.0, gae_lambda=1.0))(r, v, mask)`.

    δ_t = r_t + γ V(s_{t+1}) − V(s_t);  A_t = Σ_l (γλ)^l δ_{t+l}

    The value after the last real token is 0. Values and rewards of padding are ignored. Raises
    `ValueError` if gamma or gae_lambda is a Python number outside [0, 1].
    """
    check_fraction("gamma", gamma)
    check_fraction("gae_lambda", gae_lambda)
    real_values = jnp.where(mask, values, 0.0)
    next_values = jnp.append(real_values[1:], 0.0)
    deltas = jnp.where(mask, token_rewards, 0.0) + gamma * next_values - real_values
    return discounted_sum(deltas, mask, gamma * gae_lambda)


@check_arrays
def length_adaptive_lambda(mask: Bool[Array, " C"], alpha: float) -> Float[Array, ""]:
    """λ = max(0, 1 − 1 / (α L)) for an answer of L real tokens (VAPO, arXiv 2504.05118).

    The first token keeps about e^(−1/α) of the reward, whatever the length. Raises `ValueError` if
    alpha is a Python number that is not above 0.
    """
    check_positive("alpha", alpha)
    return jnp.maximum(0.0, 1.0 - 1.0 / (alpha * jnp.maximum(jnp.sum(mask), 1)))


@check_arrays
def lambda_returns(
    advantages: Float[Array, " C"], values: Float[Array, " C"], mask: Bool[Array, " C"]
) -> Float[Array, " C"]:
    """R_t = A_t + V(s_t) on real tokens, 0 on padding; with GAE's A this is the λ-return."""
    return jnp.where(mask, advantages + values, 0.0)


@check_arrays
def monte_carlo_returns(
    token_rewards: Float[Array, " C"], mask: Bool[Array, " C"], *, gamma: float
) -> Float[Array, " C"]:
    """Discounted reward sums R_t = Σ_l γ^l r_{t+l} on real tokens, 0 on padding.

    Raises `ValueError` if gamma is a Python number outside [0, 1].
    """
    check_fraction("gamma", gamma)
    return discounted_sum(jnp.where(mask, token_rewards, 0.0), mask, gamma)


def discounted_sum(
    x: Float[Array, " C"], mask: Bool[Array, " C"], discount: float | Float[Array, ""]
) -> Float[Array, " C"]:
    """y_t = x_t + discount · y_{t+1} on real tokens, 0 on padding; a scan from the last token."""

    def add_discounted(next_sum, inputs):
        x_t, is_real = inputs
        y_t = jnp.where(is_real, x_t + discount * next_sum, 0.0)
        return y_t, y_t

    _, sums = jax.lax.scan(add_discounted, jnp.zeros((), x.dtype), (x, mask), reverse=True)
    return sums


@check_arrays
def whiten(x: Float[Array, "B C"], mask: Bool[Array, "B C"]) -> Float[Array, "B C"]:
    """(x − mean) / std over all real tokens of the batch, 0 on padding."""
    scale = jax.lax.rsqrt(masked_variance(x, mask) + 1e-8)
    return jnp.where(mask, (x - masked_mean(x, mask)) * scale, 0.0)


@check_arrays
def group_advantages(
    rewards: Float[Array, " G"],
    valid: Bool[Array, " G"],
    *,
    epsilon: float = 1e-6,
    scale: Literal["std", "none"] = "std",
) -> Float[Array, " G"]:
    """GRPO's advantages (r − mean) / (std + ε) within one group (sample std); 0 where invalid.

    arXiv 2402.03300, section 4.1. With `scale` "none" they are r − mean: Dr.GRPO, arXiv 2503.20783.
    With fewer than two valid rewards all advantages are 0. Raises `ValueError` if epsilon is a
    Python number that is not above 0, or if there is no such scale.
    """
    check_positive("epsilon", epsilon)
    check_choice("scale", scale, ("std", "none"))
    count = jnp.sum(valid)
    # Subtracting the maximum makes equal rewards exactly equal to their mean; otherwise a rounding
    # error would be divided by the small ε.
    rewards = rewards - jnp.max(jnp.where(valid, rewards, -jnp.inf))
    variance = masked_variance(rewards, valid) * count / jnp.maximum(count - 1, 1)
    centred = rewards - masked_mean(rewards, valid)
    scaled = centred if scale == "none" else centred / (jnp.sqrt(variance) + epsilon)
    return jnp.where(valid & (count > 1), scaled, 0.0)


@check_arrays
def leave_one_out_advantages(rewards: Float[Array, " G"], valid: Bool[Array, " G"]) -> Array:
    """RLOO's advantages within one group, shape [G]: A_i = r_i − mean of the other valid rewards.

    arXiv 2402.14740. It equals n/(n−1) · (r_i − mean of the group) for n valid rewards. 0 where
    invalid; with fewer than two valid rewards all advantages are 0.
    """
    count = jnp.sum(valid)
    return group_advantages(rewards, valid, scale="none") * (count / jnp.maximum(count - 1, 1))


def overlong_penalty(
    length: Int[Array, "..."], *, max_length: int, buffer: int
) -> Float[Array, "..."]:
    """DAPO's soft overlong punishment R_length(y), in [−1, 0] (arXiv 2503.14476, equation 13).

    0 for |y| ≤ max_length − buffer, then linear in |y| down to −1 at |y| = max_length (tokens).
    """
    return jnp.clip((max_length - buffer - length) / buffer, -1.0, 0.0)
