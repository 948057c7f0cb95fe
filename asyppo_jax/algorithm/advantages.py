"""Advantage estimators: one function each, chosen by `config.algorithm.advantages`.

To add one, write a function with this signature and add its name to `ESTIMATORS` and to the field's
type in `config/algorithm_settings.py`. The result is whitened and masked by the caller.

Which `config.algorithm.advantage_whitening` belongs to which estimator:

    "gae"                   "before_mask" (default), "after_mask" or "none"
    "grpo", also Dr.GRPO    "none": the method normalizes within the group, and not again
    "rloo"                  "none"; whitened it would be REINFORCE++-baseline, so this is refused
    "reinforce_plus_plus",  "before_mask" or "after_mask", which is the method's normalization over
    "..._baseline"          the tokens of the batch; "none" is refused
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.config import AlgorithmConfig, ConfigError
from asyppo_jax.ops.returns import (
    gae,
    group_advantages,
    lambda_returns,
    leave_one_out_advantages,
    length_adaptive_lambda,
    monte_carlo_returns,
    place_reward,
)
from asyppo_jax.types import Rollout

# Of (rollout, baseline, mask, group size, config). The baseline is the critics' value, V̄ or
# min_k V_k, or the group's mean reward (`explained_variance_gate`); without critics it is 0.
Estimator = Callable[
    [Rollout, Float[Array, "B C"], Bool[Array, "B C"], int, AlgorithmConfig], Float[Array, "B C"]
]


def gae_advantages(
    rollout: Rollout,
    baseline: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """GAE from the critics' value V̄ (arXiv 1506.02438, 2510.01656); needs critics.

    δ_t = r_t + γ V̄(s_{t+1}) − V̄(s_t);  A_t = Σ_l (γλ)^l δ_{t+l}

    With `config.length_adaptive_lambda` each answer has its own λ (arXiv 2504.05118).
    """
    del group_size
    alpha = config.length_adaptive_lambda

    def lambda_of(mask):
        return length_adaptive_lambda(mask, alpha) if alpha else config.gae_lambda

    return _gae(rollout, baseline, mask, config.gamma, lambda_of)


def _gae(
    rollout: Rollout,
    values: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    gamma: float,
    lambda_of: Callable[[Array], Array | float],
) -> Float[Array, "B C"]:
    """`ops.returns.gae` of each answer, with the λ that `lambda_of` gives for its mask [C]."""

    def one_answer(reward, values, mask):
        rewards = place_reward(reward, mask)
        return gae(rewards, values, mask, gamma=gamma, gae_lambda=lambda_of(mask))

    return jax.vmap(one_answer)(rollout.rewards, values, mask)


def grpo_advantages(
    rollout: Rollout,
    baseline: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """GRPO (arXiv 2402.03300): (r − mean of the group) / std of the group, at every token.

    Without the division by `config.group_scale` "none" (Dr.GRPO, arXiv 2503.20783).
    """
    del baseline
    of_group = partial(group_advantages, scale=config.group_scale)
    return _at_every_token(of_group, rollout, mask, group_size)


def rloo_advantages(
    rollout: Rollout,
    baseline: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """RLOO (arXiv 2402.14740): r − mean of the other valid rewards of the group, at every token.

    A_i = r_i − 1/(G−1) Σ_{j≠i} r_j
    """
    del baseline, config
    return _at_every_token(leave_one_out_advantages, rollout, mask, group_size)


def reinforce_plus_plus_advantages(
    rollout: Rollout,
    baseline: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """REINFORCE++ (arXiv 2501.03262) before its normalization: each token's return, no baseline.

    A_t = Σ_l γ^l r_{t+l}; with γ = 1, as in the paper, that is the sequence's reward. The caller's
    whitening makes it (A − mean) / std over the tokens of the batch. The paper's penalty for the KL
    to a reference is not part of this function.
    """
    del baseline, group_size
    return discounted_rewards(rollout, mask, config)


def reinforce_plus_plus_baseline_advantages(
    rollout: Rollout,
    baseline: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """REINFORCE++ w/ baseline (arXiv 2501.03262) before its normalization: r − mean of the group.

    The caller's whitening divides by the std over the tokens of the batch, not by the group's.
    """
    del baseline, config
    centred = partial(group_advantages, scale="none")
    return _at_every_token(centred, rollout, mask, group_size)


ESTIMATORS: dict[str, Estimator] = {
    "gae": gae_advantages,
    "grpo": grpo_advantages,
    "rloo": rloo_advantages,
    "reinforce_plus_plus": reinforce_plus_plus_advantages,
    "reinforce_plus_plus_baseline": reinforce_plus_plus_baseline_advantages,
}


def find_estimator(config: AlgorithmConfig) -> Estimator:
    """The estimator that `config.advantages` names; raises `ConfigError` if there is none."""
    if config.advantages not in ESTIMATORS:
        raise ConfigError(
            f"config.algorithm.advantages is {config.advantages!r}, which is not one of "
            f"{', '.join(ESTIMATORS)}; correct it, or add your function to ESTIMATORS in "
            "asyppo_jax/algorithm/advantages.py"
        )
    return ESTIMATORS[config.advantages]


def _at_every_token(
    of_group: Callable[[Array, Array], Array],
    rollout: Rollout,
    mask: Bool[Array, "B C"],
    group_size: int,
) -> Float[Array, "B C"]:
    """`of_group(rewards, valid)` of each group, at every real token of its sequences."""
    rewards, valid = (x.reshape(-1, group_size) for x in (rollout.rewards, rollout.reward_valid))
    per_sequence = jax.vmap(of_group)(rewards, valid).reshape(-1, 1)
    return jnp.where(mask, per_sequence, 0.0)


def critic_targets(
    rollout: Rollout,
    value: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """R_t, what the critics fit: λ-returns of V̄, or Monte-Carlo returns (`config.returns`).

    Their λ is `config.returns_lambda` (decoupled from the actor's, VC-PPO, arXiv 2503.01491); None:
    `config.gae_lambda`. The length-adaptive λ is the actor's alone. They do not depend on the
    estimator of the actor's advantages.
    """
    if config.returns == "monte_carlo":
        return discounted_rewards(rollout, mask, config)
    of_returns = config.returns_lambda
    gae_lambda = config.gae_lambda if of_returns is None else of_returns
    advantages = _gae(rollout, value, mask, config.gamma, lambda mask: gae_lambda)
    return jax.vmap(lambda_returns)(advantages, value, mask)


def discounted_rewards(
    rollout: Rollout, mask: Bool[Array, "B C"], config: AlgorithmConfig
) -> Float[Array, "B C"]:
    """Σ_l γ^l r_{t+l}: the Monte-Carlo return at every real token, 0 on padding."""
    rewards = jax.vmap(place_reward)(rollout.rewards, mask)
    return jax.vmap(lambda r, m: monte_carlo_returns(r, m, gamma=config.gamma))(rewards, mask)
