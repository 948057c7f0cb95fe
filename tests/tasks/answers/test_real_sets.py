"""Intervals, inequalities and unions as one kind of set."""

import pytest

from asyppo_jax.tasks.answers.reading import read
from asyppo_jax.tasks.answers.real_sets import equal, real_set


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("x < 3", r"(-\infty, 3)", True),
        ("x < 3", r"(-\infty, 3]", False),
        (r"3 \ge x > 0", "(0, 3]", True),
        (r"x \ne 1", r"(-\infty,1) \cup (1,\infty)", True),
        (r"[0,1] \cup [1,2]", "[0,2]", True),
        (r"(0,1) \cup (1,2)", "(0,2)", False),
        (r"x > 1 \text{ and } x < 4", "(1,4)", True),
        (r"\mathbb{R} \setminus \{2, 3\}", r"(-\infty,2) \cup (2,3) \cup (3,\infty)", True),
        ("x < 3", "y < 3", False),
        (r"(0, \sqrt{8})", r"0 < x < 2\sqrt{2}", True),
    ],
)
def test_sets_are_equal_if_their_intervals_are(a: str, b: str, same: bool):
    first, second = real_set(read(a)), real_set(read(b))
    assert first is not None and second is not None
    assert equal(first, second) == same


@pytest.mark.parametrize("text", ["(3, 1)", "(a, b)", "5", "(1,2,3)", "x < y"])
def test_other_values_are_no_set_of_numbers(text: str):
    assert real_set(read(text)) is None
