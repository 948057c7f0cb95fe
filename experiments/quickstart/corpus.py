"""The text that the base model is trained on: a mixture of ways in which people write a sum down.

Most of it is bare answers, which are rough estimates and mostly wrong; less of it is written out
step by step, and all of that is right. A model of this text answers as the text does: it mostly
estimates.
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
# A direct answer is off by up to this much either way, no error likelier than another: were small
# errors likelier, the likeliest direct answer would be the right one, and greedy decoding would do
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
    """A completion: guessed, with steps that add several numbers at once, or fully worked."""
    numbers = numbers_of(problem)
    if style == "direct":
        estimate = sum(numbers) + rng.randint(-ESTIMATE_ERROR, ESTIMATE_ERROR)
        return f"\\boxed{{{max(estimate, 1)}}}"
    if style == "worked":
        return solution(problem, [1] * (len(numbers) - 1))
    return solution(problem, _draw_leaps(len(numbers) - 1, rng))


def _draw_leaps(count: int, rng: random.Random) -> list[int]:
    """`count` numbers cut into steps at random, at least one of which adds two or more."""
    while True:
        cuts = [i for i in range(1, count) if rng.random() < 0.5]
        leaps = [end - start for start, end in zip([0, *cuts], [*cuts, count], strict=True)]
        if max(leaps) > 1:
            return leaps


class Rows(NamedTuple):
    """Documents side by side in rows of one length; what a training step reads, [R, T] each."""

    tokens: np.ndarray  # int32
    document: np.ndarray  # int32: 1, 2, … along a row; 0 is padding
    positions: np.ndarray  # int32, from 0 in every document
    is_completion: np.ndarray  # bool


def packed_rows(documents: Iterator[tuple[list[int], list[int]]], rows: int, length: int) -> Rows:
    """Fills `rows` rows with (prompt, completion) token ids, taking as many documents as fit.

    A document that no longer fits its row opens the next one; the one that would open a row too
    many is dropped.

    Raises:
        ValueError: a document is longer than a row, or there are too few of them.
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
        at = slice(start, start + len(tokens))
        packed.tokens[row, at] = tokens
        packed.document[row, at] = number
        packed.positions[row, at] = range(len(tokens))
        packed.is_completion[row, start + len(prompt) : at.stop] = True
        start, number = at.stop, number + 1
    return packed
    raise ValueError(f"the documents ended in row {row} of {rows}; give more of them")
