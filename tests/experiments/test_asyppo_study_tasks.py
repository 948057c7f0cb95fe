import random
import re

import pytest

from asyppo_jax.tasks.rewards.graders import exact
from experiments.asyppo_study import corpus, tasks
from experiments.quickstart.task import split_of
from experiments.quickstart.tokenizer import UNKNOWN, make_tokenizer

RECORDS = {"sums": tasks.sums, "chains": tasks.chains}


def problems_of(task, split, seed, count=500):
    return [r["problem"] for r in RECORDS[task](split, count, seed)]


def evaluated(problem):
    """The answer by Python's own arithmetic, without the task's parser."""
    if not problem.startswith("m"):
        return eval(problem)
    value, *rest = re.findall(r"\d+|[+*]\d", problem)
    for operation in rest:
        value = eval(f"({value}){operation}") % tasks.MODULUS
    return int(value)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_train_and_eval_share_no_problem_for_any_pair_of_seeds(task):
    train = {p for seed in range(3) for p in problems_of(task, "train", seed, 2000)}
    held_out = {p for seed in range(3) for p in problems_of(task, "eval", seed, 2000)}
    assert not train & held_out
    assert {split_of(p) for p in held_out} == {"eval"}


@pytest.mark.parametrize("task", tasks.TASKS)
def test_records_are_distinct_reproducible_and_depend_on_the_seed(task):
    problems = problems_of(task, "eval", 0)
    assert len(set(problems)) == 500
    assert problems == problems_of(task, "eval", 0)
    assert len(set(problems) & set(problems_of(task, "eval", 1))) < 50


@pytest.mark.parametrize("task", tasks.TASKS)
def test_answers_are_those_of_python(task):
    records = RECORDS[task]("train", 1000, 0)
    assert [r["answer"] for r in records] == [str(evaluated(r["problem"])) for r in records]


def test_the_error_for_an_unknown_split_names_it():
    with pytest.raises(ValueError, match="split is 'test'; choose 'train' or 'eval'"):
        tasks.sums("test", 1, 0)


def test_solutions_show_every_step():
    assert tasks.solution("47+85+38") == r"47+85=132 132+38=170 \boxed{170}"
    assert tasks.solution("m12*7+9*6") == r"12*7=15 15+9=1 1*6=6 \boxed{6}"


def test_no_answer_is_much_more_frequent_than_the_others():
    answers = [r["answer"] for r in tasks.chains("train", 5000, 0)]
    assert max(answers.count(a) for a in set(answers)) / 5000 < 0.08


@pytest.mark.parametrize("task", tasks.TASKS)
def test_problems_of_a_task_have_its_number_of_steps_and_a_right_solution_gets_the_reward(task):
    for record in RECORDS[task]("train", 300, 0):
        problem, text = record["problem"], tasks.solution(record["problem"])
        assert len(tasks.steps_of(problem)) == tasks.NUM_STEPS[task]
        assert exact(problem, text, record["answer"]) == 1.0


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_prompt_and_solution_fits_the_declared_lengths_and_has_no_unknown_token(task):
    tokenizer = make_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids(UNKNOWN)
    for problem in problems_of(task, "train", 0, 3000):
        prompt = tokenizer(f"{problem}=")["input_ids"]
        completion = tokenizer(tasks.solution(problem))["input_ids"]
        assert len(prompt) <= tasks.MAX_PROMPT_LENGTH
        assert len(completion) + 1 <= tasks.MAX_COMPLETION_LENGTH
        assert unknown not in prompt + completion


def test_the_corpus_has_both_tasks_right_solutions_and_no_evaluation_problem():
    rng = random.Random(0)
    documents = [corpus.draw_document(rng) for _ in range(2000)]
    problems = [prompt.removesuffix("=") for prompt, _ in documents]
    assert {split_of(p) for p in problems} == {"train"}
    share = sum(p.startswith("m") for p in problems) / 2000
    assert share == pytest.approx(corpus.TASK_SHARES["chains"], abs=0.04)
    for problem, (_, completion) in zip(problems, documents, strict=True):
        assert completion == tasks.solution(problem)
