"""Arithmetic of mixed difficulty for a small pretrained model, with one example in the prompt.

To use it, a config (such as configs/smollm2_arithmetic.py) sets `source="function"` and
`path="experiments.real_model.arithmetic:records"`, uses a prompt template equal to `TEMPLATE`, and
stops answers at a newline.
"""

import itertools
import operator
import random
import zlib
from collections.abc import Callable, Iterable

from asyppo_jax.config import ConfigError

TEMPLATE = "20 + 30 = 50\n{problem} = "  # 17 to 19 tokens with SmolLM2's tokenizer

Pairs = Iterable[tuple[int, int]]

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
_ONE, _TENS = range(1, 10), range(10, 100, 10)
_TWO = [n for n in range(10, 100) if n % 10]
_EVAL_SHARE = 3  # one operand pair in three is held out


def _pairs(first: Iterable[int], second: Iterable[int]) -> list[tuple[int, int]]:
    return list(itertools.product(first, second))


def _ordered(pairs: Pairs) -> list[tuple[int, int]]:
    return [(a, b) for a, b in pairs if a >= b]


# Kind -> (how many of 13 records, operation, operands). Before training, SmolLM2-135M-Instruct can
# solve most problems of some kinds, and few of others.
KINDS: dict[str, tuple[int, str, list[tuple[int, int]]]] = {
    "one_digit_sum": (3, "+", _pairs(_ONE, _ONE)),
    "one_digit_difference": (2, "-", _ordered(_pairs(_ONE, _ONE))),
    "one_digit_product": (3, "*", _pairs(_ONE, _ONE)),
    "sum_of_tens": (1, "+", _pairs(_TENS, _TENS)),
    "difference_of_tens": (1, "-", _ordered(_pairs(_TENS, _TENS))),
    "two_digit_and_tens_sum": (1, "+", _pairs(_TWO, _TENS)),
    "two_and_one_digit_sum": (1, "+", _pairs(_TWO, _ONE)),
    "two_digit_sum": (1, "+", _pairs(_TWO, _TWO)),
}


def records(split: str, num_records: int | None, seed: int) -> list[dict[str, str]]:
    """Records such as {"problem": "3 * 4", "answer": "12"}, with the kinds in fixed proportions.

    The splits "train" and "eval" share no problem for any seeds, not even with swapped operands. A
    kind's problems are in random order and repeat after all have been used.

    Raises:
        ConfigError: an unknown split, or `num_records` is None.
    """
    if split not in ("train", "eval"):
        raise ConfigError(f"split is {split!r}; choose 'train' or 'eval'")
    if num_records is None:
        raise ConfigError("num_records is None; set the number of arithmetic records to make")
    generator = random.Random(f"{split} {seed}")
    streams = {}
    for kind in KINDS:
        problems = _problems(kind, split)
        generator.shuffle(problems)
        streams[kind] = itertools.cycle(problems)
    mix = [kind for kind, (weight, _, _) in KINDS.items() for _ in range(weight)]
    kinds = itertools.islice(itertools.cycle(mix), num_records)
    drawn = [next(streams[kind]) for kind in kinds]
    generator.shuffle(drawn)
    return drawn


def _problems(kind: str, split: str) -> list[dict[str, str]]:
    _, operation, pairs = KINDS[kind]
    return [
        {"problem": f"{a} {operation} {b}", "answer": str(_OPERATIONS[operation](a, b))}
        for a, b in pairs
        if _is_held_out(operation, a, b) == (split == "eval")
    ]


def _is_held_out(operation: str, a: int, b: int) -> bool:
    # A checksum, because Python's hash of a string differs between runs.
    text = f"{min(a, b)} {operation} {max(a, b)}"
    return zlib.crc32(text.encode()) % _EVAL_SHARE == 0
