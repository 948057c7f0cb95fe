"""Few-shot arithmetic of mixed difficulty, for a small pretrained model.

Two fifths are sums of one-digit numbers, two fifths products of them, one fifth sums of two-digit
numbers. A hash of its text puts a problem into its split: held-out ones are never trained on.
"""

import hashlib
import random

TEMPLATE = "2+5=7\n3*4=12\n23+14=37\n{problem}="
_KINDS = (("+", 1, 0.4), ("*", 1, 0.4), ("+", 2, 0.2))  # operator, digits, share
_EVAL_SHARE = 1 / 3  # there are only 81 pairs of one-digit numbers


def records(split: str, num_records: int, seed: int) -> list[dict[str, str]]:
    """Problems of a split ("train" or "eval"), such as {"problem": "23+41", "answer": "64"}.

    Training problems are drawn with repetition. Evaluation problems are different ones; a kind that
    has too few is given whole, and there are then fewer than `num_records`.

    Raises:
        ValueError: an unknown split.
    """
    if split not in ("train", "eval"):
        raise ValueError(f"split is {split!r}; choose 'train' or 'eval'")
    rng = random.Random(seed)
    chosen: list[str] = []
    for operator, digits, share in _KINDS:
        pool = [p for p in _problems(operator, digits) if _split_of(p) == split]
        count = round(share * num_records)
        if split == "train":
            chosen += rng.choices(pool, k=count)
        else:
            chosen += rng.sample(pool, min(count, len(pool)))
    rng.shuffle(chosen)
    return [{"problem": p, "answer": _answer(p)} for p in chosen]


def _problems(operator: str, digits: int) -> list[str]:
    numbers = range(10 ** (digits - 1), 10**digits)
    return [f"{a}{operator}{b}" for a in numbers for b in numbers]


def _split_of(problem: str) -> str:
    return "eval" if hashlib.sha256(problem.encode()).digest()[0] < _EVAL_SHARE * 256 else "train"


def _answer(problem: str) -> str:
    for operator, combine in (("+", int.__add__), ("*", int.__mul__)):
        if operator in problem:
            left, right = problem.split(operator)
            return str(combine(int(left), int(right)))
    raise ValueError(f"{problem!r} is neither a sum nor a product")
