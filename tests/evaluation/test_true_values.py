"""Values of states by continuations: against exact ones, and within the limits of an answer."""

import dataclasses

import jax
import numpy as np
import pytest

from asyppo_jax.config import ConfigError, RewardConfig
from asyppo_jax.evaluation.true_values import sample_states
from asyppo_jax.runs.load import load_actor
from asyppo_jax.sampling.stops import cut_at_stop_string
from asyppo_jax.tasks.prompts import Prompt, tokenize_problem
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.rewards import RewardPool
from tests.tiny import save_model_directory

LENGTH, GROUP, CONTINUATIONS = 6, 4, 64


def first_is_a_digit(problem, completion, answer):
    return float(completion[:1].isdigit())


def length_of_answer(problem, completion, answer):
    return len(completion) / 6


@pytest.fixture(scope="module")
def actor(tmp_path_factory):
    loaded = load_actor(save_model_directory(tmp_path_factory.mktemp("model")))
    config = loaded.config
    sampling = dataclasses.replace(
        config.sampling,
        num_prompts=4,
        group_size=GROUP,
        max_completion_length=LENGTH,
        temperature=1.0,
        top_p=1.0,
    )
    prompt = dataclasses.replace(config.prompt, template="{problem}=")
    return dataclasses.replace(
        loaded, config=dataclasses.replace(config, sampling=sampling, prompt=prompt)
    )


@pytest.fixture(scope="module")
def prompts(actor):
    return [
        Prompt(tokenize_problem(p, actor.tokenizer, actor.config.prompt), Record(p, "2"))
        for p in ("1+1", "2+3+4", "9+9", "5+1+7")
    ]


def states_with(actor, prompts, reward):
    with RewardPool(RewardConfig(num_workers=1, time_limit=60.0), reward) as pool:
        return sample_states(
            actor, prompts, pool, group_size=GROUP, continuations=CONTINUATIONS, seed=3
        )


def with_length(actor, length):
    sampling = dataclasses.replace(actor.config.sampling, max_completion_length=length)
    return dataclasses.replace(actor, config=dataclasses.replace(actor.config, sampling=sampling))


def test_the_value_of_a_prompt_is_what_the_logits_give(actor, prompts):
    """With answers of one token, V*(prompt) is the probability of a digit."""
    states = states_with(with_length(actor, 1), prompts, first_is_a_digit)
    assert repr(states) == (
        f"States(4 states: 4 prompts x {GROUP} answers, prefixes of 0, 0.15, 0.3, 0.5, 0.7, 0.9, "
        f"{CONTINUATIONS} continuations each)"
    )
    digits = [actor.tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)]
    for row, prompt in enumerate(prompts):
        logits = actor.logits([list(prompt.tokens)])[0, -1]
        exact = float(jax.nn.softmax(logits)[np.array(digits)].sum())
        rows = slice(row * GROUP, (row + 1) * GROUP)
        sampled = states.values[0, rows]  # one state for all answers to a prompt
        error = np.sqrt(exact * (1 - exact) / CONTINUATIONS)
        np.testing.assert_allclose(sampled, exact, atol=5 * error + 1e-6)
        variance = sampled[0] * (1 - sampled[0]) / (CONTINUATIONS - 1)
        np.testing.assert_allclose(states.squared_errors[0, rows], variance, rtol=1e-6)


@pytest.mark.slow  # the test above is quick
def test_a_prefix_that_decides_the_reward_has_the_answers_own_value(actor, prompts):
    states = states_with(actor, prompts, first_is_a_digit)
    first = states.rollout.tokens[:, -LENGTH]
    has_text = ~np.isin(first, actor.tokenizer.all_special_ids)  # special tokens are not decoded
    decided = (states.prefix_lengths > 0) & has_text[None]
    assert decided.sum() > 20
    rewards = np.broadcast_to(states.rollout.rewards, decided.shape)
    np.testing.assert_array_equal(states.values[decided], rewards[decided])
    np.testing.assert_array_equal(states.squared_errors[decided], 0.0)


def test_prefixes_are_the_fractions_of_each_answer(actor, prompts):
    states = states_with(actor, prompts, length_of_answer)
    lengths = states.rollout.completion_mask.sum(axis=1)
    for f, fraction in enumerate(states.fractions):
        np.testing.assert_array_equal(states.prefix_lengths[f], np.floor(fraction * lengths + 1e-9))
    # A longer answer than the limit would have a score above 1, which is invalid.
    assert np.isfinite(states.values).all() and states.values.max() <= 1.0


def test_a_stop_string_that_begins_in_the_prefix_ends_the_answer():
    table = np.array([[1, 0, 0], [1, 2, 0], [2, 2, 2]])  # "ab" over the tokens a, b, c
    tokens = np.array([2, 0, 0, 1, 2, 1])
    np.testing.assert_array_equal(cut_at_stop_string(table, tokens), [2, 0, 0, 1])
    np.testing.assert_array_equal(cut_at_stop_string(table, tokens[4:]), tokens[4:])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group_size": 1}, "group_size is 1"),
        ({"continuations": 1}, "continuations is 1"),
        ({"fractions": (0.5, 1.0)}, "fraction 1.0"),
    ],
)
def test_what_cannot_be_measured_is_refused(actor, prompts, changes, words):
    with (
        RewardPool(RewardConfig(function="exact")) as pool,
        pytest.raises(ConfigError, match=words),
    ):
        sample_states(actor, prompts, pool, **changes)
