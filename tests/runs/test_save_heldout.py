"""Held-out answers are saved with the values of the evaluated critics, and nothing else changes."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.forward import completion_log_probs, completion_values
from asyppo_jax.config import ConfigError, RewardConfig
from asyppo_jax.evaluation.held_out import evaluate
from asyppo_jax.runs.rollout_files import read_rollout_file
from asyppo_jax.runs.save_heldout import make_heldout_saver
from asyppo_jax.sampling.sampler import evaluation_options
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.types import TrainState
from tests.tiny import (
    COMPLETION,
    QWEN3,
    VOCABULARY_OF_TEXT,
    make_config,
    make_config_sampler,
    make_networks,
    make_sampling_setting,
    make_state,
)

PROBLEMS = ("1+1", "2+3", "4+4", "9+9", "5+1")
REWARD = RewardConfig(function="tests.graders:right_for_two_and_three", time_limit=30.0)
ARCHITECTURE = dataclasses.replace(QWEN3, vocab_size=len(VOCABULARY_OF_TEXT))


def make_saver(directory, num_critics: int, heldout_prompts: int):
    """The saver, networks and state of step 7, and `evaluate` of that state."""
    setting = make_sampling_setting(directory / "model", PROBLEMS)
    config, mesh, _, tokenizer, ids, prompts, params = setting
    of_critics = make_config(num_critics, log__heldout_prompts=heldout_prompts)
    config = dataclasses.replace(config, algorithm=of_critics.algorithm, log=of_critics.log)
    networks = make_networks(num_critics, ARCHITECTURE)
    critics = make_state(config, networks).critic_params
    state = TrainState(jnp.int32(7), jnp.zeros(2), params, None, critics, None)
    options = evaluation_options(config, *ids)
    sampler = make_config_sampler(networks, tokenizer, config, options, mesh)
    save = make_heldout_saver(directory, networks, sampler, config, mesh, prompts)

    def run(**options):
        with jax.set_mesh(mesh), RewardPool(REWARD) as pool:
            key = jax.random.key(0)
            return evaluate(sampler, params, prompts, pool, key, config, mesh, **options)

    return save, networks, state, run


def close(numbers: list[float | None], expected) -> None:
    np.testing.assert_allclose(np.array(numbers, np.float32), expected, atol=2e-5)


@pytest.mark.filterwarnings("ignore:1.*no score")
@pytest.mark.parametrize("num_critics", [2, 0])
def test_the_numbers_are_those_of_the_evaluated_state(tmp_path, num_critics):
    save, networks, state, run = make_saver(tmp_path, num_critics, heldout_prompts=2)
    assert save is not None
    rollouts = []

    def keep_and_save(rollout, rewards, valid):
        rollouts.append(rollout)
        save(state, rollout, rewards, valid)

    assert run(save_first_batch=keep_and_save) == run()
    rollout, batching = rollouts[0], make_config().batching
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    of_actor = partial(completion_log_probs, rows=rows, networks=networks, batching=batching)
    log_probs, entropy = jax.jit(of_actor)(state.actor_params)
    value = jax.jit(partial(completion_values, rows=rows, networks=networks))
    critics = [jax.tree.map(lambda x, k=k: x[k], state.critic_params) for k in range(num_critics)]
    values = np.array([value(critic) for critic in critics]).reshape(-1, *log_probs.shape)
    answers = read_rollout_file(tmp_path / "rollouts" / "heldout_00000007.jsonl")
    assert len(answers) == 6  # three answers to each of the first two problems
    for row, answer in enumerate(answers):
        n = int(rollout.completion_mask[row].sum())
        assert answer.tokens == rollout.tokens[row, -COMPLETION:][:n].tolist()
        close(answer.log_probs, log_probs[row, :n])
        close(answer.old_log_probs, rollout.log_probs[row, :n])
        close(answer.entropy, entropy[row, :n])
        assert len(answer.values) == num_critics
        for k in range(num_critics):
            close(answer.values[k], values[k, row, :n])
        close(answer.value_std, values[:, row, :n].std(axis=0) if num_critics else np.zeros(n))


@pytest.mark.filterwarnings("ignore:1.*no score")
def test_an_answer_says_what_it_answers_and_that_no_step_trains_on_it(tmp_path):
    save, _, state, run = make_saver(tmp_path, 2, heldout_prompts=2)
    assert save is not None
    run(save_first_batch=partial(save, state))
    for row, answer in enumerate(
        read_rollout_file(tmp_path / "rollouts" / "heldout_00000007.jsonl")
    ):
        assert (answer.step, answer.held_out, answer.group) == (7, True, row // 3)
        assert (answer.problem, answer.reference) == (PROBLEMS[row // 3], ("2", "5")[row // 3])
        assert answer.reward == (None, 1.0)[row // 3]  # to 1+1 the grader crashes
        assert answer.critic is None
        assert not answer.advantages and not answer.returns
        assert not answer.advantage_mask and not answer.entropy_mask


def test_without_prompts_nothing_is_saved(tmp_path):
    assert make_saver(tmp_path, 0, heldout_prompts=0)[0] is None


def test_more_prompts_than_a_batch_are_refused_with_the_numbers(tmp_path):
    sentence = r"heldout_prompts is 3; choose at most 2, .* 5 held-out .*batch_size is 2"
    with pytest.raises(ConfigError, match=sentence):
        make_saver(tmp_path, 0, heldout_prompts=3)
