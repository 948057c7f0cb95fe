"""Cases: completions that are known to be right or wrong for a reference answer.

A file has one JSON object per line, in one of two forms:

    {"id", "kind", "grader", "gold", "completion", "right"}     one case
    {"kind", "reference", "right": [...], "wrong": [...]}       answers to one reference

`gold` is the reference. If `grader` is "minerva_math", it is a JSON list of spellings, of which one
must be met. An entry of `right` or `wrong` stands in a box; without a `kind`, it is a completion.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyppo_jax.config import UserError

HERE = Path(__file__).parent
COMMITTED = (HERE / "answers.jsonl", HERE / "completions.jsonl")
COMPLETIONS_KIND = "where the answer is"


class CaseError(UserError, ValueError):
    """A file of cases that cannot be read; the message names the line."""


@dataclass(frozen=True)
class Case:
    """A completion, the references of which one must be met, and whether one of them is met."""

    id: str
    kind: str
    references: tuple[str, ...]
    completion: str
    right: bool


def read_cases(path: Path) -> list[Case]:
    """The cases of a file, in order; raises `CaseError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"the file of cases {path} cannot be read: {error}") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        try:
            cases += _cases_of(json.loads(line), number) if line.strip() else ()
        except (ValueError, KeyError, TypeError) as error:
            raise CaseError(
                f"{path}, line {number}, is not a case ({type(error).__name__}: {error}); `python "
                "-m experiments.graders --help` shows both forms"
            ) from error
    if not cases:
        raise CaseError(f"{path} has no cases; give a file with one JSON object per line")
    return cases


def _cases_of(row: dict[str, Any], line: int) -> Iterator[Case]:
    if "reference" in row:
        yield from _answers_to_one_reference(row, line)
        return
    several = row["grader"] == "minerva_math"
    references = tuple(json.loads(row["gold"])) if several else (row["gold"],)
    yield Case(str(row["id"]), row["kind"], references, row["completion"], bool(row["right"]))


def _answers_to_one_reference(row: dict[str, Any], line: int) -> Iterator[Case]:
    kind = row.get("kind", COMPLETIONS_KIND)
    for name in ("right", "wrong"):
        for number, text in enumerate(row[name], start=1):
            completion = boxed(text) if "kind" in row else text
            identity = f"{kind}, line {line}, {name} {number}"
            yield Case(identity, kind, (row["reference"],), completion, name == "right")


def boxed(answer: str) -> str:
    """A completion that ends with the answer in a box."""
    return rf"So it is $\boxed{{{answer}}}$."
