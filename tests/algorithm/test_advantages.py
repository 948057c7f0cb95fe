"""Estimators against plain loops, and targets that do not depend on them."""

import jax
import numpy as np
import pytest

from asyppo_jax.algorithm.advantages import (
    ESTIMATORS,
    critic_targets,
    find_estimator,
    gae_advantages,
    grpo_advantages,
    reinforce_plus_plus_advantages,
    reinforce_plus_plus_baseline_advantages,
    rloo_advantages,
)
from asyppo_jax.algorithm.experience import make_experience
from asyppo_jax.config import AlgorithmConfig, ConfigError
from asyppo_jax.ops.returns import whiten
from tests.tiny import make_config, make_rollout

GROUP = 8


@pytest.fixture(scope="module")
def batch():
    config = make_config(2, algorithm__gae_lambda=0.9, algorithm__gamma=0.95)
    rollout = make_rollout(config)
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    values = jax.random.normal(jax.random.key(1), (2, *mask.shape))
    return config.algorithm, rollout, mask, values


def test_gae_is_the_discounted_sum_of_temporal_differences(batch):
    config, rollout, mask, values = batch
    mean = np.asarray(values.mean(axis=0))
    ours = gae_advantages(rollout, values.mean(axis=0), mask, GROUP, config)
    for row, length in enumerate(np.asarray(mask).sum(axis=1)):
        following, next_value = 0.0, 0.0
        for t in reversed(range(length)):
            reward = float(rollout.rewards[row]) if t == length - 1 else 0.0
            delta = reward + config.gamma * next_value - mean[row, t]
            following = delta + config.gamma * config.gae_lambda * following
            next_value = mean[row, t]
            np.testing.assert_allclose(ours[row, t], following, rtol=1e-4, atol=1e-5)
    assert not np.asarray(ours)[~np.asarray(mask)].any()


def test_grpo_is_the_normalised_reward_of_the_group_at_every_token(batch):
    config, rollout, mask, values = batch
    ours = np.asarray(grpo_advantages(rollout, values[0], mask, GROUP, config))
    rewards, valid = np.asarray(rollout.rewards), np.asarray(rollout.reward_valid)
    for start in range(0, len(rewards), GROUP):
        rows = [r for r in range(start, start + GROUP) if valid[r]]
        mean, std = rewards[rows].mean(), rewards[rows].std(ddof=1)
        for row in rows:
            expected = (rewards[row] - mean) / (std + 1e-6)
            np.testing.assert_allclose(ours[row][np.asarray(mask)[row]], expected, rtol=1e-4)


def test_rloo_is_the_reward_less_the_mean_of_the_groups_other_rewards(batch):
    config, rollout, mask, values = batch
    ours = np.asarray(rloo_advantages(rollout, values[0], mask, GROUP, config))
    rewards, valid = np.asarray(rollout.rewards), np.asarray(rollout.reward_valid)
    for row in np.flatnonzero(valid):
        start = row - row % GROUP
        others = [rewards[r] for r in range(start, start + GROUP) if valid[r] and r != row]
        expected = np.where(np.asarray(mask)[row], rewards[row] - np.mean(others), 0.0)
        np.testing.assert_allclose(ours[row], expected, rtol=1e-5, atol=1e-6)
    assert not ours[~valid].any()


def test_reinforce_plus_plus_is_the_discounted_reward_of_each_token(batch):
    config, rollout, mask, values = batch
    ours = reinforce_plus_plus_advantages(rollout, values[0], mask, GROUP, config)
    for row, length in enumerate(np.asarray(mask).sum(axis=1)):
        discounts = config.gamma ** np.arange(length - 1, -1, -1)
        expected = np.zeros(mask.shape[1])
        expected[:length] = float(rollout.rewards[row]) * discounts
        np.testing.assert_allclose(ours[row], expected, rtol=1e-5)


def test_reinforce_plus_plus_with_baseline_is_the_reward_less_the_groups_mean(batch):
    config, rollout, mask, values = batch
    ours = reinforce_plus_plus_baseline_advantages(rollout, values[0], mask, GROUP, config)
    rewards, valid = np.asarray(rollout.rewards), np.asarray(rollout.reward_valid)
    for row in np.flatnonzero(valid):
        group = slice(row - row % GROUP, row - row % GROUP + GROUP)
        mean = rewards[group][valid[group]].mean()
        expected = np.where(np.asarray(mask)[row], rewards[row] - mean, 0.0)
        np.testing.assert_allclose(ours[row], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["reinforce_plus_plus", "reinforce_plus_plus_baseline"])
def test_reinforce_plus_plus_is_normalised_over_the_tokens_of_the_batch(batch, name):
    _, rollout, mask, values = batch
    whitened = make_config(0, algorithm__advantages=name).algorithm
    experience = make_experience(
        rollout, values[:0], jax.random.key(2), group_size=GROUP, config=whitened
    )
    raw = ESTIMATORS[name](rollout, values[0], mask, GROUP, whitened)
    raw, real = np.asarray(raw, np.float64), np.asarray(mask)
    expected = np.where(real, (raw - raw[real].mean()) / raw[real].std(), 0.0)
    np.testing.assert_allclose(experience.advantages, expected, rtol=1e-4, atol=1e-5)


def test_whitened_rloo_would_be_reinforce_plus_plus_with_baseline(batch):
    """Why the settings refuse it: n/(n - 1) is a constant where every reward is valid."""
    config, rollout, _, values = batch
    rollout = rollout.replace(reward_valid=np.ones(len(rollout.rewards), bool))
    mask = rollout.completion_mask
    rloo = rloo_advantages(rollout, values[0], mask, GROUP, config)
    baseline = reinforce_plus_plus_baseline_advantages(rollout, values[0], mask, GROUP, config)
    np.testing.assert_allclose(whiten(rloo, mask), whiten(baseline, mask), rtol=1e-4, atol=1e-5)


def test_grpo_with_critics_keeps_their_masks_and_their_targets(batch):
    _, rollout, mask, values = batch
    experience = {}
    for name in ("gae", "grpo"):
        config = make_config(2, algorithm__advantages=name).algorithm
        key = jax.random.key(2)
        experience[name] = make_experience(rollout, values, key, group_size=GROUP, config=config)
    gae, grpo = experience["gae"], experience["grpo"]
    np.testing.assert_array_equal(gae.advantage_mask, grpo.advantage_mask)
    np.testing.assert_array_equal(gae.entropy_mask, grpo.entropy_mask)
    np.testing.assert_array_equal(gae.returns, grpo.returns)
    assert (np.asarray(gae.advantages) != np.asarray(grpo.advantages))[np.asarray(mask)].any()


def test_lambda_targets_are_the_final_reward_at_gamma_and_lambda_one(batch):
    _, rollout, mask, values = batch
    config = make_config(2).algorithm
    targets = np.asarray(critic_targets(rollout, values.mean(axis=0), mask, config))
    expected = np.where(mask, np.asarray(rollout.rewards)[:, None], 0.0)
    np.testing.assert_allclose(targets, expected, atol=1e-5)


def test_a_name_without_an_estimator_is_refused_and_a_new_one_is_found(monkeypatch):
    config = AlgorithmConfig(advantages="opo")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="advantages is 'opo', which is not one of gae, grpo, "):
        find_estimator(config)
    monkeypatch.setitem(ESTIMATORS, "opo", ESTIMATORS["grpo"])
    assert find_estimator(config) is ESTIMATORS["grpo"]
    assert config.method == "opo (2 critics, masks 0% and 20%)"  # what a run prints at its start
