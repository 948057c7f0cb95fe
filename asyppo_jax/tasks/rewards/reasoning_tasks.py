r"""Tasks of reasoning-gym, scored by the task's own `score_answer` (arXiv 2505.24760).

Many tasks have several right answers (countdown, sudoku), or answers that are no mathematics
(grids, words, hexadecimal numbers). `math` compares with the one answer of the record, so it takes
only the tasks of `MATH_TASKS`.

Worker processes load this file by its path.
"""

import functools
import importlib
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from asyppo_jax.tasks.answers.extract import final_answers

# The package generates these without a reference answer, and `composite` without tasks of its own.
NO_ANSWER = (
    "boxnet",
    "composite",
    "graph_color",
    "propositional_logic",
    "rubiks_cube",
    "rush_hour",
)
# Tasks with one number, or one formula, as their only right answer.
MATH_TASKS = (
    "basic_arithmetic",
    "chain_sum",
    "complex_arithmetic",
    "count_bits",
    "count_primes",
    "decimal_arithmetic",
    "decimal_chain_sum",
    "dice",
    "fraction_simplification",
    "gcd",
    "gsm_symbolic",
    "largest_island",
    "lcm",
    "leg_counting",
    "letter_counting",
    "number_sequence",
    "polynomial_multiplication",
    "products",
    "rectangle_count",
    "rotten_oranges",
    "simple_equations",
    "simple_geometry",
)
# Their `score_answer` compares with nested tuples, which are lists behind the pipe of a worker.
_TUPLE_TASKS = ("arc_agi", "rearc")


def reasoning_gym(problem: str, completion: str, answer: str, record: Mapping[str, Any]) -> float:
    """1.0 if the task gives the final answer its full score, else 0.0."""
    return float(reasoning_gym_partial(problem, completion, answer, record) == 1.0)


def reasoning_gym_partial(
    problem: str, completion: str, answer: str, record: Mapping[str, Any]
) -> float:
    """The score of the task in [0, 1]: many tasks give a part of it for an answer that is close.

    Raises:
        ValueError: the record is not an item of a task.
    """
    metadata = record.get("metadata")
    name = metadata.get("source_dataset") if isinstance(metadata, Mapping) else None
    if not name:
        raise ValueError(
            "the record has no metadata of a reasoning-gym task; set config.reward.function to "
            "math, or the source of the data to reasoning_gym"
        )
    entry = _with_tuples(dict(record)) if name in _TUPLE_TASKS else dict(record)
    texts = [
        text for given in final_answers(completion)[:1] for text in (given.strip(), _plain(given))
    ]
    scores = [_score(name, text, entry) for text in dict.fromkeys(texts)]
    return min(max(scores, default=0.0), 1.0)


def _score(name: str, text: str, entry: dict[str, Any]) -> float:
    """The task's score; 0.0 for a wrong answer that reasoning-gym 0.1.25 would take for right.

    `game_of_life_halting` gives 1.0 to any text, `coin_flip` to each beginning of the right
    number, so to 0 for 0.25.
    """
    if name == "game_of_life_halting" and text.lower() != entry["answer"].lower():
        return 0.0
    try:
        score = float(_scorer(name)(answer=text, entry=entry))
        if name == "coin_flip" and score == 1.0:
            return float(math.isclose(Fraction(text), float(entry["answer"]), rel_tol=1e-3))
    except ValueError:  # a task that reads numbers, and an answer that is none, is wrong
        return 0.0
    return score


def _plain(text: str) -> str:
    r"""The text without \text{...}, dollar signs and line breaks of LaTeX."""
    text = re.sub(r"\\(?:text|texttt|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", text)
    text = text.replace("\\\\", "\n").replace("$", "").replace("\\ ", " ")
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_tuples(field) for name, field in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


@functools.cache
def _scorer(name: str) -> Callable[..., float]:
    return importlib.import_module("reasoning_gym").get_score_answer_fn(name)
