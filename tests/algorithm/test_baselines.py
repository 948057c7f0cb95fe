"""Settings of the baselines in a full step: dropped groups, and the dual clip with its metric."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import (
    assert_trees_equal,
    jit_step,
    make_config,
    make_networks,
    make_rollout,
    make_state,
    with_one_prompt_a_group,
)

GRPO = {"algorithm__advantages": "grpo", "algorithm__advantage_whitening": "none"}


@functools.cache
def _rollout():
    """Four groups; all answers of the second have the reward 1."""
    config = make_config()
    rollout = with_one_prompt_a_group(make_rollout(config), config)
    return rollout.replace(rewards=rollout.rewards.at[8:16].set(1.0))


def _step(num_critics, rollout=None, **changes):
    config, networks = make_config(num_critics, **changes), make_networks(num_critics)
    state = make_state(config, networks)
    return jit_step(config, networks)(state, _rollout() if rollout is None else rollout)


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm__loss_aggregation": "token", "batching__packing": True},
        pytest.param({"batching__rows_per_prompt": 4}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_dropped_group_takes_as_little_part_in_the_actors_loss_as_an_invalid_one(changes):
    """Loss and denominators: without critics, that is all that an invalid reward changes."""
    changes = GRPO | changes
    dropped, metrics = _step(0, algorithm__zero_spread_groups="drop", **changes)
    _, kept_metrics = _step(0, **changes)
    rollout = _rollout()
    valid = rollout.reward_valid.at[8:16].set(False)
    expected, expected_metrics = _step(0, rollout.replace(reward_valid=valid), **changes)
    assert_trees_equal(dropped.actor_params, expected.actor_params)
    assert metrics["actor/entropy"] == expected_metrics["actor/entropy"]
    assert metrics["rollout/groups_without_spread"] == 0.25
    assert metrics["rollout/reward_mean"] > expected_metrics["rollout/reward_mean"]
    assert metrics["actor/grad_norm"] > kept_metrics["actor/grad_norm"]  # a smaller denominator


@pytest.mark.slow  # test_experience.py and test_rows.py show it for the arrays
def test_the_critics_learn_from_dropped_groups_too():
    dropped, metrics = _step(2, algorithm__zero_spread_groups="drop")
    kept, kept_metrics = _step(2)
    assert_trees_equal(dropped.critic_params, kept.critic_params)
    assert metrics["actor/grad_norm"] != kept_metrics["actor/grad_norm"]
    of_the_actor = ("actor/", "rollout/log_prob_gap", "ensemble/low_std_", "ensemble/high_std_")
    for name, value in kept_metrics.items():
        if not name.startswith(of_the_actor):
            assert metrics[name] == value, name


def test_the_dual_clip_is_counted_and_bounds_the_loss():
    rollout = _rollout()
    # Old log-probs far below the current ones: every ratio is above 3.
    rollout = rollout.replace(log_probs=jnp.full_like(rollout.log_probs, -20.0))
    changes = GRPO | {"algorithm__actor_epochs": 1, "algorithm__entropy_coef": 0.0}
    changes |= {"batching__actor_minibatch_size": 32}
    _, metrics = _step(0, rollout, algorithm__dual_clip=3.0, **changes)
    _, plain = _step(0, rollout, **changes)
    assert "actor/dual_clip_fraction" not in plain
    rewards = np.asarray(rollout.rewards).reshape(-1, 8)
    valid = np.asarray(rollout.reward_valid).reshape(-1, 8)
    means = np.array([r[v].mean() for r, v in zip(rewards, valid, strict=True)])
    bad = np.where(valid, rewards < means[:, None], False).ravel()
    real = np.asarray(rollout.completion_mask & rollout.reward_valid[:, None])
    fraction = real[bad].sum() / real.sum()
    np.testing.assert_allclose(metrics["actor/dual_clip_fraction"], fraction, rtol=1e-6)
    # Every token is clipped on one side or the other, so nothing is left to learn.
    assert metrics["actor/grad_norm"] == 0 < plain["actor/grad_norm"]
    assert metrics["actor/loss"] < plain["actor/loss"]
