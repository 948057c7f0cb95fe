"""Experience from a scored rollout and the critics' values: all that the two updates need."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from asyppo_jax.algorithm.advantages import critic_targets, discounted_rewards, find_estimator
from asyppo_jax.config import AlgorithmConfig, ConfigError
from asyppo_jax.ops.baselines import group_mean_of_others, has_spread
from asyppo_jax.ops.ensemble import (
    critic_shards,
    disagreement_masks,
    ensemble_value,
    mask_scores,
    value_mean_and_std,
)
from asyppo_jax.ops.masked import (
    explained_variance,
    masked_mean,
    masked_quantile,
    masked_variance,
    variance_parts,
)
from asyppo_jax.ops.returns import overlong_penalty, whiten
from asyppo_jax.types import Experience, Rollout


def make_experience(
    rollout: Rollout,
    values: Float[Array, "K B C"],
    key: PRNGKeyArray,
    *,
    group_size: int,
    config: AlgorithmConfig,
) -> Experience:
    """Advantages, returns, both token masks, and each critic's share of the responses.

    These are steps 3 to 5 of docs/method.md and the inputs of step 6. Without critics (K = 0)
    values are empty, returns are 0, and both masks keep every token, unless `config.mask_by` ranks
    tokens without critics.

    With `config.overlong_buffer` advantages and returns are made of the rewards plus the penalty
    for long answers; the experience's rollout keeps the task's own rewards.

    `key` divides the responses among the critics and breaks ties of the masks.

    Raises:
        ConfigError: the rollout lacks the entropy that masks are made by, or which answers are
            truncated, with `config.overlong_filter`.
    """
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    task_rollout, rollout = rollout, _with_overlong_penalty(rollout, config)
    mask_key, shard_key = jax.random.split(key)
    num_critics, num_prompts = values.shape[0], mask.shape[0] // group_size
    if num_critics:
        value = ensemble_value(values, config.value_aggregation)
        _, value_std = value_mean_and_std(values)
        returns = critic_targets(rollout, value, mask, config)
        shards = critic_shards(
            shard_key,
            num_prompts=num_prompts,
            group_size=group_size,
            num_critics=num_critics,
            critic_data=config.critic_data,
        )
    else:
        value = value_std = returns = jnp.zeros(mask.shape, jnp.float32)
        shards = jnp.zeros((0, mask.shape[0]), bool)
    advantage_mask, entropy_mask = _token_masks(rollout, value_std, mask, mask_key, config)
    baseline = value
    if config.explained_variance_gate:
        baseline = gated_values(rollout, value, mask, group_size, config)
    estimate = find_estimator(config)
    advantages = estimate(rollout, baseline, mask, group_size, config)
    return Experience(
        rollout=task_rollout,
        values=values,
        value_std=value_std,
        advantages=_whiten(advantages, mask, advantage_mask, config),
        returns=returns,
        loss_mask=mask,
        actor_mask=_actor_mask(task_rollout, mask, group_size, config),
        advantage_mask=advantage_mask,
        entropy_mask=entropy_mask,
        critic_shards=shards,
    )


def _token_masks(
    rollout: Rollout,
    value_std: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    key: PRNGKeyArray,
    config: AlgorithmConfig,
) -> tuple[Bool[Array, "B C"], Bool[Array, "B C"]]:
    """The masks I^A and I^H by `config.mask_by`; all real tokens where there is nothing to rank."""
    if not config.ranks_tokens:
        return mask, mask
    if config.mask_by == "entropy" and rollout.entropy is None:
        raise ConfigError(
            "config.algorithm.mask_by is 'entropy', but this rollout has none; sample it with "
            "DecodingOptions(entropy=True), or set its entropy"
        )
    return disagreement_masks(
        mask_scores(value_std, rollout.entropy, config.mask_by),
        mask,
        key,
        advantage_mask_fraction=config.advantage_mask_fraction,
        entropy_mask_fraction=config.entropy_mask_fraction,
    )


def gated_values(
    rollout: Rollout,
    value: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    group_size: int,
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    """V̄ while it explains the rollout's Monte-Carlo returns, else the mean of the others' rewards.

    After EVPO (arXiv 2604.19485): V̄ is the baseline where EV > 0. The other baseline is the mean
    reward of the group's other answers, at every token.
    """
    returns = discounted_rewards(rollout, mask, config)
    others = group_mean_of_others(rollout.rewards, rollout.reward_valid, group_size)
    explains = explained_variance(value, returns, mask) > 0
    return jnp.where(explains, value, jnp.where(mask, others[:, None], 0.0))


def _with_overlong_penalty(rollout: Rollout, config: AlgorithmConfig) -> Rollout:
    """The rollout with the rewards r + overlong_penalty · R_length(y); C is the maximum length."""
    if config.overlong_buffer == 0:
        return rollout
    penalty = overlong_penalty(
        jnp.sum(rollout.completion_mask, axis=1),
        max_length=rollout.completion_mask.shape[1],
        buffer=config.overlong_buffer,
    )
    return rollout.replace(rewards=rollout.rewards + config.overlong_penalty * penalty)


def _actor_mask(
    rollout: Rollout, mask: Bool[Array, "B C"], group_size: int, config: AlgorithmConfig
) -> Bool[Array, "B C"]:
    """The tokens of the actor's loss, without the groups whose rewards are all equal unless "keep".

    With `config.overlong_filter` truncated answers are left out, too (EasyPPO, arXiv 2609.36802).
    The task's own rewards decide, as in DAPO: a penalty for long answers would give groups without
    a right answer a spread. Critics, whitening, both token masks and statistics keep every group.
    """
    if config.overlong_filter:
        if rollout.truncated is None:
            raise ConfigError(
                "config.algorithm.overlong_filter is on, but this rollout does not say which "
                "answers are truncated; set its `truncated`"
            )
        mask = mask & ~rollout.truncated[:, None]
    if config.zero_spread_groups == "keep":
        return mask
    kept = has_spread(rollout.rewards, rollout.reward_valid, group_size)
    return mask & jnp.repeat(kept, group_size)[:, None]


def _whiten(
    advantages: Float[Array, "B C"],
    mask: Bool[Array, "B C"],
    advantage_mask: Bool[Array, "B C"],
    config: AlgorithmConfig,
) -> Float[Array, "B C"]:
    if config.advantage_whitening == "none":
        return advantages
    return whiten(
        advantages, mask if config.advantage_whitening == "before_mask" else advantage_mask
    )


def summarize(experience: Experience, group_size: int, config: AlgorithmConfig) -> dict[str, Array]:
    """The rollout's and the critics' metrics of a step, before any update: scalars by name.

    To add a metric of a step, add it here, or to `actor_update` or `critic_update`.
    """
    rollout, mask = experience.rollout, experience.loss_mask
    num_critics = experience.values.shape[0]
    real = rollout.completion_mask
    lengths = jnp.sum(real, axis=-1)
    valid = rollout.reward_valid
    metrics = {
        "rollout/reward_mean": masked_mean(rollout.rewards, valid),
        "rollout/reward_std": jnp.sqrt(masked_variance(rollout.rewards, valid)),
        "rollout/groups_without_spread": jnp.mean(
            (~has_spread(rollout.rewards, valid, group_size)).astype(jnp.float32)
        ),
        "rollout/reward_invalid": jnp.sum(~valid).astype(jnp.float32),
        "rollout/completion_length_mean": jnp.mean(lengths.astype(jnp.float32)),
        "rollout/completion_length_max": jnp.max(lengths).astype(jnp.float32),
        "rollout/completion_tokens": jnp.sum(real).astype(jnp.float32),
        "rollout/advantage_abs_mean": masked_mean(jnp.abs(experience.advantages), mask),
    }
    if num_critics or config.ranks_tokens:
        metrics |= {
            "ensemble/advantage_mask_rate": _masked_rate(experience.advantage_mask, mask),
            "ensemble/entropy_mask_rate": _masked_rate(experience.entropy_mask, mask),
        }
    if num_critics == 0:
        return metrics
    std, returns = experience.value_std, experience.returns
    value = ensemble_value(experience.values, config.value_aggregation)
    metrics |= {
        "ensemble/value_std_p50": masked_quantile(std, mask, 0.5),
        "ensemble/value_std_p90": masked_quantile(std, mask, 0.9),
        "critic/value_mean": masked_mean(value, mask),
        "critic/return_mean": masked_mean(returns, mask),
        "critic/explained_variance": explained_variance(value, returns, mask),
    }
    for k in range(num_critics):
        name = f"critic/explained_variance_{k}"
        metrics[name] = explained_variance(experience.values[k], returns, mask)
    return metrics | _variance_metrics(experience, group_size, config)


def _variance_metrics(
    experience: Experience, group_size: int, config: AlgorithmConfig
) -> dict[str, Array]:
    """Where the critics explain the returns, and where values and σ vary.

    The explained variance of Monte-Carlo returns is split into the parts of `variance_parts`:
    between prompts, between the answers of a prompt, and within answers. At γ = 1 a return is the
    same at every token of an answer, so the last part is −Var_t(V̄) / Var(R): what the values'
    movement costs, also that of perfect values.
    """
    mask, std = experience.loss_mask, experience.value_std
    value = ensemble_value(experience.values, config.value_aggregation)
    penalized = _with_overlong_penalty(experience.rollout, config)  # as the critics' targets
    targets = discounted_rewards(penalized, mask, config)
    returns = variance_parts(targets, mask, group_size)
    residuals = variance_parts(targets - value, mask, group_size)
    values, stds = variance_parts(value, mask, group_size), variance_parts(std, mask, group_size)
    total = returns.total
    explained = {
        name: _share(of_return - of_residual, total)
        for name, of_return, of_residual in zip(
            ("prompts", "answers", "tokens"), returns, residuals, strict=True
        )
    }
    return {
        **{f"critic/explained_between_{name}": share for name, share in explained.items()},
        "critic/value_variance_within_answers": _share(values.within_answers, values.total),
        "ensemble/std_variance_within_answers": _share(stds.within_answers, stds.total),
    }


def _share(part: Array, total: Array) -> Array:
    return jnp.where(total > 1e-12, part / jnp.maximum(total, 1e-12), 0.0)


def _masked_rate(kept: Bool[Array, "B C"], mask: Bool[Array, "B C"]) -> Float[Array, ""]:
    return 1.0 - masked_mean(kept.astype(jnp.float32), mask)
