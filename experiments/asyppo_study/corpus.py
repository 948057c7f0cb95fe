"""The base models' training text: problems of both tasks, solved step by step."""

import random

from experiments.asyppo_study.tasks import DRAW, Task, solution
from experiments.quickstart.corpus import Document
from experiments.quickstart.task import PROMPT_TEMPLATE, split_of

TASK_SHARES: dict[Task, float] = {"sums": 0.4, "chains": 0.6}


def draw_document(rng: random.Random) -> Document:
    """A training problem of one of the tasks, and its solution."""
    task = rng.choices(tuple(TASK_SHARES), weights=tuple(TASK_SHARES.values()))[0]
    problem = DRAW[task](rng)
    while split_of(problem) != "train":
        problem = DRAW[task](rng)
    return PROMPT_TEMPLATE.format(problem=problem), solution(problem)
