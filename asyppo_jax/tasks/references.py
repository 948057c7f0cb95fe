"""Which reference answers `math` cannot read in full: they are reported when data are loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from asyppo_jax.tasks.answers.corrections import CORRECTED
from asyppo_jax.tasks.answers.judge import says_less, says_nothing, text_only
from asyppo_jax.tasks.prompts import name_some
from asyppo_jax.tasks.records import Record


@dataclass(frozen=True)
class Misread:
    """A reference: its index in the records, and its first characters."""

    index: int
    answer: str

    def __str__(self) -> str:
        return f"records[{self.index}] {self.answer!r}"


@dataclass(frozen=True)
class ReferenceReport:
    """The references of a list of records that a grader of mathematics cannot read in full."""

    num_records: int
    text: tuple[Misread, ...]  # right is only an answer with the same text
    identity: tuple[Misread, ...]  # an equation that always holds: nothing is asked
    shortened: tuple[Misread, ...]  # read without some of its words, such as "where n is odd"

    def summary(self) -> str:
        """One line; "" if all references are read in full."""
        kinds = (
            ("can only be compared as text", self.text),
            ("say nothing, because they always hold", self.identity),
            ("are read without some of their words", self.shortened),
        )
        counts = [f"{len(rows)} {what} ({name_some(rows)})" for what, rows in kinds if rows]
        return f"of {self.num_records} references {'; '.join(counts)}" if counts else ""


def check_references(records: Sequence[Record], *, spellings: bool = False) -> ReferenceReport:
    """The report on the references of `records`; records without an answer are left out.

    With `spellings` each answer is a JSON list, of which the first spelling is checked.
    """
    found: dict[str, list[Misread]] = {"text": [], "identity": [], "shortened": []}
    for index, record in enumerate(records):
        answer = next(iter(json.loads(record.answer)), "") if spellings else record.answer
        if not answer.strip() or answer in CORRECTED:
            continue
        kinds = {"text": text_only, "identity": says_nothing, "shortened": says_less}
        kind = next((name for name, applies in kinds.items() if applies(answer)), None)
        if kind is not None:
            found[kind].append(Misread(index, answer[:40]))
    return ReferenceReport(len(records), **{name: tuple(rows) for name, rows in found.items()})
