"""Errors are counted by kind; an invalid verdict is an error of a right and of a wrong case."""

import numpy as np

from experiments.graders.cases import Case
from experiments.graders.results import Count, Verdicts, count, errors, kinds_of, table

CASES = [
    Case("1", "lists", ("1,2",), "2,1", True),
    Case("2", "units", ("5",), "5 km", True),
    Case("3", "lists", ("1,2",), "1", False),
    Case("4", "lists", ("1,2",), "3", False),
]
GOOD = Verdicts("good", np.array([1, 1, 0, 0], bool), np.ones(4, bool), 0.002)
BAD = Verdicts("bad 1.0", np.array([0, 0, 1, 0], bool), np.array([1, 0, 1, 0], bool), 8.5)


def test_errors_are_counted_by_kind_and_in_total():
    assert errors(GOOD, CASES) == []
    assert [(case.id, error) for case, error in errors(BAD, CASES)] == [
        ("1", "false negative"),
        ("2", "invalid"),
        ("3", "false positive"),
        ("4", "invalid"),
    ]
    assert kinds_of(CASES) == ["lists", "units"]
    assert count(BAD, CASES, "lists") == Count(1, 1, 1)
    assert count(BAD, CASES) == Count(1, 1, 2) and count(BAD, CASES).total == 4


def test_the_table_has_a_row_per_kind_and_the_sums():
    assert table([GOOD, BAD], CASES).splitlines() == [
        "| kind | right | wrong | good | bad 1.0 |",
        "|---|---|---|---|---|",
        "| lists | 1 | 2 | 0 / 0 / 0 | 1 / 1 / 1 |",
        "| units | 1 | 0 | 0 / 0 / 0 | 0 / 0 / 1 |",
        "| all | 2 | 2 | 0 / 0 / 0 | 1 / 1 / 2 |",
        "| errors per case | | | 0.00% | 100.00% |",
        "| verdicts per second | | | 2,000 | 0.2 |",
    ]
