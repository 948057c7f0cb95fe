r"""The study's two tasks, with written steps and a reward of 0 or 1.

sums:    add three numbers of two digits.    "47+85+38=" -> "47+85=132 132+38=170 \boxed{170}"
chains:  apply three operations modulo 23.   "m12*7+8*6=" -> "12*7=15 15+8=0 0*6=0 \boxed{0}"

A chain starts with the letter m and is read from left to right. All problems of a task have the
same number of steps, so all right answers have nearly the same length. `sums` and `chains` give the
records of a split for `config.train_data.path`.
"""

import random
from collections.abc import Callable
from typing import Literal

from experiments.quickstart.task import distinct_problems

Task = Literal["sums", "chains"]
Step = tuple[str, int]  # an expression such as "472+851", and its value

TASKS: tuple[Task, ...] = ("sums", "chains")
MODULUS = 23
NUM_STEPS = {"sums": 2, "chains": 3}
MAX_PROMPT_LENGTH = 10  # tokens, with the equals sign
MAX_COMPLETION_LENGTH = 29  # tokens, with the end of sequence


def sums(split: str, num_records: int, seed: int) -> list[dict[str, str]]:
    """Distinct sums of a split ("train" or "eval"), each {"problem": ..., "answer": ...}.

    Raises:
        ValueError: an unknown split.
    """
    return _records(draw_sum, split, num_records, seed)


def chains(split: str, num_records: int, seed: int) -> list[dict[str, str]]:
    """The same for chains."""
    return _records(draw_chain, split, num_records, seed)


def _records(
    draw: Callable[[random.Random], str], split: str, num_records: int, seed: int
) -> list[dict[str, str]]:
    problems = distinct_problems(draw, split, num_records, seed)
    return [{"problem": p, "answer": str(steps_of(p)[-1][1])} for p in problems]


def draw_sum(rng: random.Random) -> str:
    """A random sum of three numbers from 10 to 99."""
    return "+".join(str(rng.randint(10, 99)) for _ in range(NUM_STEPS["sums"] + 1))


def draw_chain(rng: random.Random) -> str:
    """A random chain: a number below 23, then three times "+" or "*" and a number from 2 to 9."""
    operations = (f"{rng.choice('+*')}{rng.randint(2, 9)}" for _ in range(NUM_STEPS["chains"]))
    return f"m{rng.randrange(MODULUS)}{''.join(operations)}"


DRAW: dict[Task, Callable[[random.Random], str]] = {"sums": draw_sum, "chains": draw_chain}


def steps_of(problem: str) -> list[Step]:
    """The right steps of a problem, in order; the last value is the answer."""
    text, modulus = (problem[1:], MODULUS) if problem.startswith("m") else (problem, 10**9)
    words = text.replace("+", " +").replace("*", " *").split()
    value, steps = int(words[0]), []
    for word in words[1:]:
        expression, number = f"{value}{word}", int(word[1:])
        value = (value + number if word[0] == "+" else value * number) % modulus
        steps.append((expression, value))
    return steps


def solution(problem: str) -> str:
    """The right solution of a problem, with all its steps."""
    steps = steps_of(problem)
    written = "".join(f"{expression}={value} " for expression, value in steps)
    return f"{written}\\boxed{{{steps[-1][1]}}}"
