"""Errors of graders, by kind of case, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.graders.cases import Case

ERRORS = ("false negative", "false positive", "invalid")


@dataclass(frozen=True)
class Verdicts:
    """What one grader said of each case."""

    title: str  # the grader, with its version
    passed: np.ndarray  # [cases] bool
    valid: np.ndarray  # [cases] bool; false: it raised an error, or had to be killed
    seconds: float  # of processor time, for all valid verdicts

    def error(self, index: int, case: Case) -> str:
        """One of `ERRORS`, or "" if the verdict on a case is right."""
        if not self.valid[index]:
            return "invalid"
        if self.passed[index] == case.right:
            return ""
        return "false positive" if self.passed[index] else "false negative"

    @property
    def per_second(self) -> float:
        """Valid verdicts per second of processor time; 0 if there are none."""
        return int(self.valid.sum()) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Count:
    """The errors of one grader among some cases; an invalid verdict is an error."""

    false_negatives: int
    false_positives: int
    invalid: int

    @property
    def total(self) -> int:
        return self.false_negatives + self.false_positives + self.invalid


def errors(verdicts: Verdicts, cases: Sequence[Case]) -> list[tuple[Case, str]]:
    """The cases on which a grader is wrong, and how."""
    found = [(case, verdicts.error(index, case)) for index, case in enumerate(cases)]
    return [(case, error) for case, error in found if error]


def count(verdicts: Verdicts, cases: Sequence[Case], kind: str | None = None) -> Count:
    """The errors among all cases, or among those of one kind."""
    found = [error for case, error in errors(verdicts, cases) if kind in (None, case.kind)]
    return Count(*(found.count(error) for error in ERRORS))


def kinds_of(cases: Sequence[Case]) -> list[str]:
    """The kinds of cases, in the order in which they first appear."""
    return list(dict.fromkeys(case.kind for case in cases))


def table(results: Sequence[Verdicts], cases: Sequence[Case]) -> str:
    """Errors by kind in Markdown: false negatives / false positives / invalid."""
    lines = [
        "| kind | right | wrong | " + " | ".join(r.title for r in results) + " |",
        "|---" * (3 + len(results)) + "|",
    ]
    for kind in kinds_of(cases):
        chosen = [case for case in cases if case.kind == kind]
        lines.append(_row(kind, chosen, [count(r, cases, kind) for r in results]))
    totals = [count(r, cases) for r in results]
    lines.append(_row("all", cases, totals))
    shares = [f"{total.total / len(cases):.2%}" for total in totals]
    lines.append("| errors per case | | | " + " | ".join(shares) + " |")
    rates = [_rate(result.per_second) for result in results]
    return "\n".join([*lines, "| verdicts per second | | | " + " | ".join(rates) + " |"])


def _row(name: str, cases: Sequence[Case], counts: Sequence[Count]) -> str:
    right = sum(case.right for case in cases)
    cells = [f"{c.false_negatives} / {c.false_positives} / {c.invalid}" for c in counts]
    return f"| {name} | {right} | {len(cases) - right} | " + " | ".join(cells) + " |"


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"
