"""The choice of groups against plain Python."""

import jax
import numpy as np
import pytest

from asyppo_jax.algorithm.experience import summarize
from asyppo_jax.config import MeshConfig
from asyppo_jax.ops.baselines import has_spread
from asyppo_jax.runtime.sharding import make_mesh
from asyppo_jax.sampling.resampling import choose_groups, group_rows, take_rows
from tests.algorithm.test_experience import _experience
from tests.tiny import make_config, make_rollout


def test_a_group_with_spread_has_right_and_wrong_answers():
    """DAPO's equation 11, 0 < right answers < G; an answer without a score does not count."""
    rewards = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    valid = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)
    spread = has_spread(rewards.ravel(), valid.ravel(), 3)
    assert spread.tolist() == [False, False, True, False, False]
    right, scored = (rewards * valid).sum(axis=1), valid.sum(axis=1)
    assert spread.tolist() == ((right > 0) & (right < scored)).tolist()
    assert has_spread(np.array([0.25, 0.5], np.float32), np.ones(2, bool), 2).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_host_finds_the_groups_that_the_step_drops(seed):
    config = make_config()
    rng = np.random.default_rng(seed)
    rollout = make_rollout(config, seed)
    rewards = (rng.random(32) < np.repeat([0.02, 0.98, 0.5, 0.1], 8)).astype(np.float32)
    valid = rng.random(32) < 0.9
    rollout = rollout.replace(rewards=rewards, reward_valid=valid)
    experience = _experience(2, rollout=rollout)
    share = summarize(experience, 8, config.algorithm)["rollout/groups_without_spread"]
    assert float(np.mean(~has_spread(rewards, valid, 8))) == share


def _first_with_spread(rounds: list[list[bool]]) -> set[tuple[int, int]]:
    """(round, group) of the first N groups with spread, as verl's DAPO recipe collects them."""
    count, chosen = len(rounds[0]), []
    for i, spreads in enumerate(rounds):
        chosen += [(i, j) for j, spread in enumerate(spreads) if spread]
    return set(chosen[:count])


@pytest.mark.parametrize("seed", range(20))
def test_the_first_groups_with_spread_of_all_rounds_are_chosen(seed):
    rng = np.random.default_rng(seed)
    rounds = (rng.random((4, 8)) < rng.choice([0.05, 0.3, 0.9])).tolist()
    now, spread = [(0, j) for j in range(8)], np.array(rounds[0])
    for i, spreads in enumerate(rounds[1:], start=1):
        before, groups = list(now), choose_groups(spread, np.array(spreads))
        now = [[*before, *((i, j) for j in range(8))][k] for k in groups]
        for old, new, keeps in zip(before, now, spread, strict=True):
            assert new == old or not keeps  # a group with spread keeps its position
        spread = np.array([rounds[i][j] for i, j in now])
    assert len(set(now)) == 8
    chosen = {(i, j) for i, j in now if rounds[i][j]}
    assert chosen == _first_with_spread(rounds)
    # What is left without spread was in the first round, and found no replacement.
    assert all(i == 0 for i, j in now if not rounds[i][j])
    assert len(chosen) == min(8, sum(map(sum, rounds)))


def test_the_sequences_of_the_chosen_groups_are_taken_together():
    config, mesh = make_config(), make_mesh(MeshConfig())
    left, right = make_rollout(config, 0), make_rollout(config, 1)
    groups = choose_groups(np.array([True, False, False, True]), np.array([False, True] * 2))
    assert groups.tolist() == [0, 5, 7, 3]
    rows = group_rows(groups, 8)
    taken = take_rows((left, right), rows, mesh)
    expected = jax.tree.map(
        lambda a, b: np.concatenate([a[:8], b[8:16], b[24:], a[24:]]), left, right
    )
    jax.tree.map(np.testing.assert_array_equal, taken, expected)
