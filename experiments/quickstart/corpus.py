"""The base model's training text: sums, answered in a mixture of styles.

Most documents have only an answer, which is a rough estimate and mostly wrong. The others are
written step by step and always right. A model trained on this text therefore mostly estimates.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.quickstart.task import (
    PROMPT_TEMPLATE,
    Style,
    draw_problem,
    numbers_of,
    solution,
    split_of,
)

STYLE_SHARES: dict[Style, float] = {"direct": 0.6, "leaping": 0.15, "worked": 0.25}
# The error of a direct answer is uniform between − this and + this. If small errors were more
# likely, the right answer would be the most likely direct answer, and greedy decoding would find it
# without reasoning.
ESTIMATE_ERROR = 6

Document = tuple[str, str]  # prompt, completion


def draw_document(rng: random.Random) -> Document:
    """A training problem and a completion in one of the styles."""
    problem = draw_problem(rng)
    while split_of(problem) != "train":
        problem = draw_problem(rng)
    style = rng.choices(tuple(STYLE_SHARES), weights=tuple(STYLE_SHARES.values()))[0]
    return PROMPT_TEMPLATE.format(problem=problem), completion_in_style(problem, style, rng)


def completion_in_style(problem: str, style: Style, rng: random.Random) -> str:
    """A completion in a style: an estimate, steps of several numbers, or a step per number."""
    numbers = numbers_of(problem)
    if style == "direct":
        estimate = sum(numbers) + rng.randint(-ESTIMATE_ERROR, ESTIMATE_ERROR)
        return f"\\boxed{{{max(estimate, 1)}}}"
    if style == "worked":
        return solution(problem, [1] * (len(numbers) - 1))
    return solution(problem, _draw_leaps(len(numbers) - 1, rng))


def _draw_leaps(count: int, rng: random.Random) -> list[int]:
    """How many of `count` numbers each step adds, at random; at least one adds two or more."""
    while True:
        cuts = [i for i in range(1, count) if rng.random() < 0.5]
        leaps = [end - start for start, end in zip([0, *cuts], [*cuts, count], strict=True)]
        if max(leaps) > 1:
            return leaps


class Rows(NamedTuple):
    """A batch of packed documents for a training step; arrays are [R, T]."""

    tokens: np.ndarray  # int32
    document: np.ndarray  # int32: 1, 2, … along a row; 0 is padding
    positions: np.ndarray  # int32, from 0 in every document
    is_completion: np.ndarray  # bool


def packed_rows(documents: Iterator[tuple[list[int], list[int]]], rows: int, length: int) -> Rows:
    """`rows` rows of `length` tokens, packed with documents of (prompt, completion) token ids.

    A document that does not fit into the current row starts the next row. A document that would
    start a row too many is dropped.

    Raises:
        ValueError: a document is longer than a row, or there are too few documents.
    """
    packed = Rows(*(np.zeros((rows, length), kind) for kind in (np.int32,) * 3 + (bool,)))
    row, start, number = 0, 0, 1
    for prompt, completion in documents:
        tokens = prompt + completion
        if len(tokens) > length:
            raise ValueError(f"a document has {len(tokens)} tokens; make the rows at least as long")
        if start + len(tokens) > length:
            row, start, number = row + 1, 0, 1
        if row == rows:
            return packed
        span = slice(start, start + len(tokens))
        packed.tokens[row, span] = tokens
        packed.document[row, span] = number
        packed.positions[row, span] = range(len(tokens))
        packed.is_completion[row, start + len(prompt) : span.stop] = True
        start, number = span.stop, number + 1
    raise ValueError(f"the documents ended in row {row} of {rows}; give more of them")
