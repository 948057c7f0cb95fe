r"""The quickstart's task: add four to six one-digit numbers and write the sum in \boxed{}.

A problem is a sum such as "7+5+8+9"; `PROMPT_TEMPLATE` makes it the prompt "7+5+8+9=". A completion
may write partial sums, "7+5=12 12+8=20 20+9=29 \boxed{29}", or only the answer. Each step adds one
digit to a number of at most two digits, which is easy; the full sum in one step is not.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Literal

PROMPT_TEMPLATE = "{problem}="
MAX_PROMPT_LENGTH = 12  # tokens: six numbers, five signs and the equals sign
MAX_COMPLETION_LENGTH = 44  # tokens: five steps, the boxed answer and the end of sequence

Style = Literal["direct", "leaping", "worked"]
STYLES: tuple[Style, ...] = ("direct", "leaping", "worked")

_EVAL_SHARE = 0.1


def records(split: str, num_records: int, seed: int) -> list[dict[str, str]]:
    """Distinct problems of a split ("train" or "eval"), each {"problem": ..., "answer": ...}.

    The split of a problem is a hash of its text, so the splits share no problem for any seeds.

    Raises:
        ValueError: an unknown split.
    """
    problems = distinct_problems(draw_problem, split, num_records, seed)
    return [{"problem": p, "answer": str(sum(numbers_of(p)))} for p in problems]


def distinct_problems(
    draw: Callable[[random.Random], str], split: str, num_records: int, seed: int
) -> list[str]:
    """The first so many distinct problems of a split that `draw` gives.

    Raises:
        ValueError: an unknown split.
    """
    if split not in ("train", "eval"):
        raise ValueError(f"split is {split!r}; choose 'train' or 'eval'")
    rng = random.Random(seed)
    problems: dict[str, None] = {}  # a dict instead of a set, because it preserves the order
    while len(problems) < num_records:
        problem = draw(rng)
        if split_of(problem) == split:
            problems[problem] = None
    return list(problems)


def draw_problem(rng: random.Random) -> str:
    """A random problem: the sum of four to six numbers from 1 to 9."""
    return "+".join(str(rng.randint(1, 9)) for _ in range(rng.choice((4, 5, 6))))


def split_of(problem: str) -> Literal["train", "eval"]:
    """The split that a problem belongs to; it does not depend on the seed."""
    digest = hashlib.sha256(problem.encode()).digest()
    return "eval" if digest[0] < _EVAL_SHARE * 256 else "train"


def numbers_of(problem: str) -> list[int]:
    """The numbers of a problem, in order."""
    return [int(number) for number in problem.split("+")]


def solution(problem: str, added_per_step: Sequence[int]) -> str:
    """A correct solution whose i-th step adds `added_per_step[i]` numbers to the sum so far.

    With all ones the solution has a step per number; with an empty list it is only the answer.
    """
    total, *rest = numbers_of(problem)
    steps = []
    for count in added_per_step:
        added, rest = rest[:count], rest[count:]
        terms = "+".join(map(str, (total, *added)))
        total += sum(added)
        steps.append(f"{terms}={total} ")
    return "".join(steps) + f"\\boxed{{{total + sum(rest)}}}"


def style_of(problem: str, completion: str) -> Style:
    """The style of a completion: without steps, with too few steps, or with a step per number."""
    num_steps = completion.count("=")
    if num_steps == 0:
        return "direct"
    return "worked" if num_steps >= len(numbers_of(problem)) - 1 else "leaping"
