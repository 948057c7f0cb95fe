"""Baselines from other answers' rewards: slow loops, and that no answer's own reward enters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops.baselines import group_mean_of_others, shrunken_group_mean

GROUP = 4
BASELINES = (group_mean_of_others, shrunken_group_mean)


def random_rewards(seed: int, num_groups: int = 6):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(size=(num_groups, 1))
    rewards = (rng.uniform(size=(num_groups, GROUP)) < rates).astype(np.float32)
    valid = rng.uniform(size=rewards.shape) < 0.9
    return jnp.asarray(rewards.ravel()), jnp.asarray(valid.ravel())


def slow_shrunken(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """For each answer, from the lists of the rewards of its group and of the other groups."""
    groups = [
        [r for r, v in zip(rs, vs, strict=True) if v]
        for rs, vs in zip(rewards.reshape(-1, GROUP), valid.reshape(-1, GROUP), strict=True)
    ]
    result = []
    for row in range(len(rewards)):
        g = row // GROUP
        mine = [rewards[j] for j in range(g * GROUP, (g + 1) * GROUP) if j != row and valid[j]]
        others = [group for i, group in enumerate(groups) if i != g and group]
        mean = np.mean([r for group in others for r in group])
        squares = sum(((np.array(group) - np.mean(group)) ** 2).sum() for group in others)
        within = squares / sum(len(group) - 1 for group in others)
        between = np.var([np.mean(group) for group in others], ddof=1)
        between = max(between - within * np.mean([1 / len(group) for group in others]), 0.0)
        if not mine:
            result.append(mean)
            continue
        total = between + within / len(mine)
        shrinkage = between / total if total > 0 else 1.0
        result.append(mean + shrinkage * (np.mean(mine) - mean))
    return np.array(result)


@pytest.mark.parametrize("seed", range(4))
def test_the_shrunken_mean_is_the_slow_loop(seed):
    rewards, valid = random_rewards(seed)
    expected = slow_shrunken(np.asarray(rewards, np.float64), np.asarray(valid))
    np.testing.assert_allclose(shrunken_group_mean(rewards, valid, GROUP), expected, atol=2e-6)


def test_the_mean_of_others_of_a_hand_computed_group():
    rewards = jnp.array([1.0, 0.0, 0.0, 1.0])
    valid = jnp.array([True, True, True, False])
    np.testing.assert_allclose(
        group_mean_of_others(rewards, valid, GROUP), [0.0, 0.5, 0.5, 1 / 3], rtol=1e-6
    )


@pytest.mark.parametrize("baseline", BASELINES)
def test_no_answer_sees_its_own_reward(baseline):
    rewards, valid = random_rewards(7)
    jacobian = jax.jacobian(lambda r: baseline(r, valid, GROUP))(rewards)
    np.testing.assert_array_equal(np.diag(jacobian), 0.0)
    changed = baseline(rewards.at[5].set(1 - rewards[5]), valid, GROUP)
    np.testing.assert_allclose(changed[5], baseline(rewards, valid, GROUP)[5], rtol=1e-6)


def test_shrinkage_goes_to_the_mean_where_prompts_do_not_differ_and_to_the_group_where_they_do():
    rng = np.random.default_rng(0)
    num_groups, valid = 200, jnp.ones(200 * GROUP, bool)
    same = jnp.asarray(rng.integers(0, 2, num_groups * GROUP), jnp.float32)
    assert np.std(shrunken_group_mean(same, valid, GROUP)) < 0.05
    different = jnp.repeat(jnp.arange(num_groups) % 2, GROUP).astype(jnp.float32)
    np.testing.assert_allclose(shrunken_group_mean(different, valid, GROUP), different, atol=1e-5)


@pytest.mark.parametrize("baseline", BASELINES)
def test_one_group_has_only_its_own_answers(baseline):
    rewards, valid = jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.ones(4, bool)
    np.testing.assert_allclose(
        baseline(rewards, valid, GROUP), [0.0, 1 / 3, 1 / 3, 1 / 3], atol=1e-6
    )


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("group_size", [0, 5])
def test_rewards_that_are_not_whole_groups_are_refused_with_their_shapes(baseline, group_size):
    message = rf"rewards have shape \(24,\) and valid \(24,\), but group_size is {group_size}; give"
    with pytest.raises(ValueError, match=message):
        baseline(*random_rewards(0), group_size)
