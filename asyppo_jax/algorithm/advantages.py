"""Advantage estimators: one function each, chosen by `config.algorithm.advantages`.

To add one, write a function with this signature and add its name to `ESTIMATORS` and to the field's
type in `config/settings.py`. The result is whitened and masked by the caller.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.config import AlgorithmConfig
from asyppo_jax.ops.returns import (
    gae,
    group_advantages,
    lambda_returns,
    length_adaptive_lambda,
    monte_carlo_returns,
    place_reward,
)
from asyppo_jax.types import Rollout

Estimator = Callable[
    [Rollout, Float[Array, "B C"], Bool[Array, "B C"], int, AlgorithmConfig], Float[Array, "B C"]
]


def gae_advantages(
    rollout: Rollout,
    value_mean: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """GAE from the critics' mean value V̄ (arXiv 1506.02438, 2510.01656); needs critics.

    δ_t = r_t + γ V̄(s_{t+1}) − V̄(s_t);  A_t = Σ_l (γλ)^l δ_{t+l}

    With `config.length_adaptive_lambda` each answer has its own λ (arXiv 2504.05118).
    """
    del group_size
    alpha = config.length_adaptive_lambda

    def one_sequence(reward, values, mask):
        rewards = place_reward(reward, mask)
        gae_lambda = length_adaptive_lambda(mask, alpha) if alpha else config.gae_lambda
        return gae(rewards, values, mask, gamma=config.gamma, gae_lambda=gae_lambda)

    return jax.vmap(one_sequence)(rollout.rewards, value_mean, mask)


def grpo_advantages(
    rollout: Rollout,
    value_mean: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """GRPO (arXiv 2402.03300): (r − mean of the group) / std of the group, at every token.

    Without the division by `config.group_scale` "none" (Dr.GRPO, arXiv 2503.20783).
    """
    del value_mean
    rewards, valid = (x.reshape(-1, group_size) for x in (rollout.rewards, rollout.reward_valid))
    of_group = partial(group_advantages, scale=config.group_scale)
    per_sequence = jax.vmap(of_group)(rewards, valid).reshape(-1, 1)
    return jnp.where(mask, per_sequence, 0.0)


ESTIMATORS: dict[str, Estimator] = {"gae": gae_advantages, "grpo": grpo_advantages}


def critic_targets(
    rollout: Rollout,
    value_mean: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """R_t, what the critics fit: λ-returns of V̄, or Monte-Carlo returns (`config.returns`).

    Their λ is `config.returns_lambda` (decoupled from the actor's, VC-PPO, arXiv 2503.01491).

    They do not depend on the estimator of the actor's advantages.
    """
    if config.returns == "monte_carlo":
        return monte_carlo_targets(rollout, mask, config)
    gae_lambda = config.gae_lambda if config.returns_lambda is None else config.returns_lambda
    own = replace(config, gae_lambda=gae_lambda, length_adaptive_lambda=0.0)
    advantages = gae_advantages(rollout, value_mean, mask, 1, own)
    return jax.vmap(lambda_returns)(advantages, value_mean, mask)


def monte_carlo_targets(
    rollout: Rollout, mask: Bool[Array, "B C"], config: AlgorithmConfig
) -> Float[Array, "B C"]:
    """Discounted sums of the rewards that follow, at every token."""
    rewards = jax.vmap(place_reward)(rollout.rewards, mask)
    return jax.vmap(lambda r, m: monte_carlo_returns(r, m, gamma=config.gamma))(rewards, mask)
