"""DAPO's dynamic sampling of a run against plain Python: its groups, its limit, its metrics."""

import dataclasses

import jax
import numpy as np
import pytest

from asyppo_jax.algorithm.train_step import phase_key
from asyppo_jax.config import from_config_dict
from asyppo_jax.runs.collect import collect
from asyppo_jax.runs.progress import Progress
from asyppo_jax.runs.setup import first_state, prepare
from asyppo_jax.sampling.sampler import read_answers
from asyppo_jax.tasks.prompts import make_prompt_iterator
from asyppo_jax.tasks.rewards import RewardPool
from configs import tiny_test
from tests.graders import odd_letters
from tests.tiny import save_model_directory

GROUP, PROMPTS = 4, 4


def half(problem, completion, answer):
    return 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    values = tiny_test.get_config()
    values.actor.path = save_model_directory(tmp_path_factory.mktemp("model"))
    values.algorithm.zero_spread_groups = "resample"
    values.algorithm.critic_warmup_steps = 0
    values.sampling.max_rounds = 6
    return prepare(from_config_dict(values))


@pytest.fixture(scope="module")
def state(run):
    return first_state(run)


def _prompts_of(run):
    return make_prompt_iterator(run.train_prompts, batch_size=PROMPTS, seed=run.config.seed)


def _collect(run, state, reward, **sampling):
    config = dataclasses.replace(
        run.config, sampling=dataclasses.replace(run.config.sampling, **sampling)
    )
    run, data = dataclasses.replace(run, config=config), _prompts_of(run)
    progress = Progress(1, is_writer=False)
    with RewardPool(config.reward, reward) as pool, jax.set_mesh(run.mesh):
        collected = collect(run, state, data, pool, progress)
    return collected, next(data)


def _groups_of_every_round(run, state, reward, rounds):
    """(prompt, completions, rewards) of each group, sampled and scored one round after another."""
    data, groups = _prompts_of(run), []
    resample = phase_key(state.key, state.step, "resample")
    for i in range(rounds):
        key = jax.random.fold_in(resample, i) if i else phase_key(state.key, state.step, "sample")
        prompts = next(data)
        rollout = run.sampler(state.actor_params, prompts, key, run.mesh)
        texts = read_answers(rollout, prompts, run.sampler).completions
        for j, prompt in enumerate(prompts):
            answers = texts[j * GROUP : (j + 1) * GROUP]
            rewards = [reward(prompt.record.problem, x, "") for x in answers]
            groups.append((prompt.record.problem, tuple(answers), tuple(rewards)))
    return groups, next(data)


def test_groups_without_spread_are_replaced_by_the_first_later_ones_with_spread(run, state):
    collected, following = _collect(run, state, odd_letters)
    rounds = collected.metrics["rollout/rounds"]
    groups, expected_following = _groups_of_every_round(run, state, odd_letters, int(rounds))
    with_spread = [group for group in groups if len(set(group[2])) > 1]
    assert 1 < rounds < 6
    assert len([g for g in groups[:-PROMPTS] if len(set(g[2])) > 1]) < PROMPTS  # none too many
    answers, rewards = collected.answers, collected.columns.rewards.reshape(-1, GROUP)
    chosen = [
        (collected.prompts[i].record.problem, tuple(texts), tuple(rewards[i]))
        for i, texts in enumerate(np.array(answers.completions, object).reshape(-1, GROUP))
    ]
    assert sorted(chosen) == sorted(with_spread[:PROMPTS])
    assert following == expected_following  # the prompts of all rounds are used up
    # Each array of the rollout has the sequences of these groups.
    again = read_answers(collected.rollout, collected.prompts, run.sampler)
    assert again.completions == answers.completions
    np.testing.assert_array_equal(collected.rollout.rewards, collected.columns.rewards)
    np.testing.assert_array_equal(collected.rollout.truncated, collected.columns.truncated)
    np.testing.assert_array_equal(collected.rollout.completion_mask.sum(axis=1), answers.lengths)
    np.testing.assert_array_equal(collected.scores.rewards, collected.columns.rewards)
    assert collected.metrics == {
        "rollout/rounds": rounds,
        "rollout/groups_sampled": len(groups),
        "rollout/groups_sampled_without_spread": 1 - len(with_spread) / len(groups),
        "rollout/reward_mean_sampled": pytest.approx(np.mean([group[2] for group in groups])),
    }


def test_at_the_limit_groups_without_spread_of_the_first_round_are_left(run, state):
    collected, following = _collect(run, state, odd_letters, max_rounds=2)
    groups, expected_following = _groups_of_every_round(run, state, odd_letters, 2)
    with_spread = [group for group in groups if len(set(group[2])) > 1]
    assert len(with_spread) < PROMPTS and following == expected_following
    spread = np.ptp(collected.columns.rewards.reshape(-1, GROUP), axis=1) > 0
    assert spread.sum() == len(with_spread)
    first = [group[0] for group in groups[:PROMPTS]]
    left = [collected.prompts[int(i)].record.problem for i in np.flatnonzero(~spread)]
    assert left and set(left) <= set(first)
    assert collected.metrics["rollout/rounds"] == 2


def test_without_any_spread_the_first_round_is_left(run, state):
    collected, _ = _collect(run, state, half)
    assert list(collected.prompts) == next(_prompts_of(run))
    assert collected.metrics["rollout/rounds"] == run.config.sampling.max_rounds
    assert collected.metrics["rollout/groups_sampled_without_spread"] == 1
    assert collected.sampled_tokens > collected.columns.lengths.sum()


def test_the_critics_warm_up_samples_one_round(run, state):
    """The actor is not updated, and critics also learn from groups without spread."""
    algorithm = dataclasses.replace(run.config.algorithm, critic_warmup_steps=1)
    warming_up = dataclasses.replace(
        run, config=dataclasses.replace(run.config, algorithm=algorithm)
    )
    collected, following = _collect(warming_up, state, half)
    data = _prompts_of(run)
    assert list(collected.prompts) == next(data) and following == next(data)
    assert collected.metrics == {}
