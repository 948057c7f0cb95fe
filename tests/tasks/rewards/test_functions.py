"""Reward functions by name and as objects: what they are called with, weights, refusals."""

import functools
import threading
from dataclasses import replace

import numpy as np
import pytest

from asyppo_jax.config import ConfigError, RewardConfig
from asyppo_jax.tasks.rewards import RewardPool, exact, math
from asyppo_jax.tasks.rewards.functions import find_rewards

CONFIG = RewardConfig(function="exact", time_limit=30.0, num_workers=1)


def test_one_function_has_all_the_weight_and_a_short_name():
    (reward,) = find_rewards(replace(CONFIG, function="tests.graders:right_for_two_and_three"))
    assert (reward.name, reward.weight) == ("right_for_two_and_three", 1.0)
    assert not reward.takes_record


def test_several_names_with_weights_that_add_up_to_one():
    rewards = find_rewards(replace(CONFIG, function="math, exact", weights=(3.0, 1.0)))
    assert [r.function for r in rewards] == [math, exact]
    assert [r.weight for r in rewards] == [0.75, 0.25]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0,), r"weights has 1 numbers for 2 reward functions"),
        ((0.0, 0.0), r"make at least one larger than 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        find_rewards(replace(CONFIG, function="math,exact", weights=weights))


def two(problem, completion): ...


def four(problem, completion, answer, tokens): ...


@pytest.mark.parametrize("function", [two, four])
def test_a_function_with_other_arguments_is_refused_before_anything_is_sampled(function):
    name = function.__name__
    with pytest.raises(ConfigError, match=rf"reward .*:{name}\(problem, .* cannot be called as"):
        find_rewards(CONFIG, function)


def test_a_function_in_the_place_of_its_name_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"takes a name; give .* RewardPool\(config, "):
        find_rewards(replace(CONFIG, function=exact))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["__main__:reward", "my_module:make.<locals>.reward"])
def test_a_name_that_no_worker_can_import_is_refused_with_what_to_do(name):
    with pytest.raises(ConfigError, match=r"move the function .* train\(\.\.\., reward="):
        find_rewards(replace(CONFIG, function=name))


def test_a_function_defined_here_is_sent_to_the_workers_with_what_it_closes_over():
    bonus = 0.25

    def length(problem, completion, answer):
        return min(1.0, len(completion) / 8 + bonus)

    with RewardPool(CONFIG, length) as pool:
        scores = pool.score(["", ""], ["a", "abcd"], ["", ""])
    np.testing.assert_array_equal(scores.rewards, [0.375, 0.75])
    assert scores.by_function == {}


def test_a_parameter_called_record_gets_the_columns_of_the_data():
    def level(problem, completion, answer, record):
        return record["level"] / 10

    with RewardPool(CONFIG, level) as pool:
        scores = pool.score(["", ""], ["", ""], ["", ""], [{"level": 2}, {"level": 5}])
    np.testing.assert_allclose(scores.rewards, [0.2, 0.5])


def test_several_functions_give_their_weighted_mean_and_their_own_means():
    def half(problem, completion, answer):
        return 0.5

    config = replace(CONFIG, weights=(3.0, 1.0))
    with RewardPool(config, [exact, half]) as pool:
        scores = pool.score(["", ""], ["7", "8"], ["7", "7"])
    np.testing.assert_allclose(scores.rewards, [0.875, 0.125])
    np.testing.assert_array_equal(scores.by_function["exact"], [1, 0])
    np.testing.assert_array_equal(scores.by_function["half"], [0.5, 0.5])


def test_an_answer_that_one_of_several_functions_cannot_score_is_invalid():
    def fails(problem, completion, answer):
        raise ValueError(f"not {completion}")

    with RewardPool(CONFIG, [exact, fails]) as pool:
        scores = pool.score([""], ["7"], ["7"])
        assert not scores.valid.any() and scores.reasons["crashed"] == 1
        assert pool.failure.startswith("ValueError: not 7 (")


def test_a_function_that_cannot_be_pickled_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"cannot be sent to its worker processes"):
        find_rewards(CONFIG, functools.partial(_with_lock, lock=threading.Lock()))


def _with_lock(problem, completion, answer, *, lock) -> float:
    return 0.0
