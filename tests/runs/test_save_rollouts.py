"""Saved rollouts hold the very numbers that the step learns from."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.forward import completion_log_probs
from asyppo_jax.algorithm.train_step import score_rollout
from asyppo_jax.config import ConfigError
from asyppo_jax.runs.rollout_files import read_rollout_file
from asyppo_jax.runs.save_rollouts import make_rollout_saver
from asyppo_jax.runtime.sharding import make_mesh
from asyppo_jax.sampling.sampler import training_options
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.tokenizers import load_tokenizer
from experiments.quickstart.tokenizer import save_tokenizer
from tests.tiny import (
    QWEN3,
    VOCABULARY_OF_TEXT,
    make_config,
    make_config_sampler,
    make_networks,
    make_rollout,
    make_state,
)

STOP = 3
ARCHITECTURE = dataclasses.replace(QWEN3, vocab_size=len(VOCABULARY_OF_TEXT))


def saved(directory, num_critics: int = 2, finished_steps: int = 0, **changes):
    """Config, networks, state and rollout, and the answers that were saved."""
    changes = {"log__rollouts_every": 2, "log__rollout_prompts": 3} | changes
    config = make_config(num_critics, **changes)
    networks, mesh = make_networks(num_critics, ARCHITECTURE), make_mesh(config.mesh)
    state = make_state(config, networks).replace(step=np.int32(finished_steps))
    rollout = make_rollout(config)
    rollout = rollout.replace(tokens=rollout.tokens % len(VOCABULARY_OF_TEXT))
    save_tokenizer(directory / "tokenizer")
    tokenizer = load_tokenizer(str(directory / "tokenizer"))
    options = training_options(config, stop_ids=(STOP,), pad_id=0)
    sampler = make_config_sampler(networks, tokenizer, config, options, mesh)
    prompts = [Prompt((5, 6 + i), Record(f"problem {i}", str(i))) for i in range(4)]
    with jax.set_mesh(mesh):
        make_rollout_saver(directory, networks, sampler, config, mesh)(state, rollout, prompts)
    file = directory / "rollouts" / f"step_{finished_steps + 1:08}.jsonl"
    return config, networks, state, rollout, read_rollout_file(file) if file.exists() else []


@functools.partial(jax.jit, static_argnames=("networks", "config"))
def _step_numbers(state, rollout, networks, config):
    clock, options = (state.key, state.step), {"networks": networks, "config": config}
    experience, _ = score_rollout(state.critic_params, *clock, rollout, **options)
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    log_probs, entropy = completion_log_probs(state.actor_params, rows, networks, config.batching)
    return experience, log_probs, entropy


def close(numbers: list[float | None], ours) -> None:
    np.testing.assert_allclose(np.array(numbers, np.float32), ours, atol=2e-5)


@pytest.mark.parametrize("num_critics", [2, 0])
def test_the_numbers_are_those_of_the_step(tmp_path, num_critics):
    config, networks, state, rollout, answers = saved(tmp_path, num_critics, finished_steps=1)
    experience, log_probs, entropy = _step_numbers(state, rollout, networks, config)
    assert len(answers) == 24  # the eight answers to each of the first three prompts
    for row, answer in enumerate(answers):
        n = int(rollout.completion_mask[row].sum())
        assert answer.tokens == rollout.tokens[row, 5 : 5 + n].tolist()
        close(answer.advantages, experience.advantages[row, :n])
        close(answer.returns, experience.returns[row, :n])
        close(answer.value_std, experience.value_std[row, :n])
        close(answer.old_log_probs, rollout.log_probs[row, :n])
        close(answer.log_probs, log_probs[row, :n])
        close(answer.entropy, entropy[row, :n])
        assert len(answer.values) == num_critics
        for k in range(num_critics):
            close(answer.values[k], experience.values[k, row, :n])
        assert answer.advantage_mask == experience.advantage_mask[row, :n].tolist()
        assert answer.entropy_mask == experience.entropy_mask[row, :n].tolist()
        assert experience.critic_shards[:, row].tolist() == [
            k == answer.critic for k in range(num_critics)
        ]


def test_an_answer_says_what_it_answers_what_it_earned_and_whether_it_ended(tmp_path):
    *_, rollout, answers = saved(tmp_path, finished_steps=1)
    for row, answer in enumerate(answers):
        assert (answer.step, answer.group) == (2, row // 8)
        assert (answer.problem, answer.reference) == (f"problem {row // 8}", str(row // 8))
        assert answer.reward == (None if row == 3 else float(rollout.rewards[row]))
        assert answer.truncated == (answer.tokens[-1] != STOP)


def test_only_the_steps_that_are_due_are_saved(tmp_path):
    *_, answers = saved(tmp_path, finished_steps=2)
    assert not answers and not (tmp_path / "rollouts").exists()
    *_, answers = saved(tmp_path, finished_steps=1, log__rollouts_every=0)
    assert not answers


def test_more_prompts_than_a_step_has_are_refused_with_the_number(tmp_path):
    with pytest.raises(ConfigError, match=r"rollout_prompts is 5; choose 1 to .* = 4"):
        saved(tmp_path, log__rollout_prompts=5)
