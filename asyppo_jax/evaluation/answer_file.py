"""Answers with their verdicts as a JSONL file that survives a kill: a batch is there or it is not.

One line an answer, the answers of a problem side by side, problems in order. Beside it lie the
settings that it was made with; other settings are refused, because the rest would not fit.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from etils import epath

from asyppo_jax.config import UserError
from asyppo_jax.runtime.paths import absolute, in_bucket, open_to_append, write_whole

# Right or wrong by the grader; nothing in it that could be graded; the grader itself failed or took
# too long. The last two count as wrong and are told apart.
Verdict = Literal["right", "wrong", "no_answer", "ungraded"]


class AnswerFileError(UserError, ValueError):
    """An answer file that cannot be gone on with; the message names it and the mend."""


class Answer(TypedDict):
    """One completion and what became of it."""

    index: int  # of the problem, in the benchmark's order
    sample: int
    problem: str
    answer: str  # the reference
    completion: str
    verdict: Verdict
    score: float  # in [0, 1]; 0 unless graded
    truncated: bool  # no stop token within the length
    length: int  # tokens, stop token included


class AnswerFile:
    """`directory/answers.jsonl`, with `settings.json` beside it."""

    def __init__(self, directory: str, settings: Mapping[str, Any]) -> None:
        """Opens a new or an unfinished file.

        Raises:
            AnswerFileError: it holds answers of other settings, or a broken line.
        """
        self._directory = absolute(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._path = self._directory / "answers.jsonl"
        self._check_settings(dict(settings))
        self.answers = self._read()

    def _check_settings(self, settings: dict[str, Any]) -> None:
        file = self._directory / "settings.json"
        now = json.loads(json.dumps(settings))
        if self._path.is_file() and file.is_file():
            before = json.loads(file.read_text())
            for name in sorted(before.keys() | now.keys()):
                if before.get(name) != now.get(name):
                    raise AnswerFileError(
                        f"{self._path} holds answers made with {name} = {before.get(name)!r}, now "
                        f"it is {now.get(name)!r}; give another --output, or remove that file"
                    )
        write_whole(file, (json.dumps(now, indent=2) + "\n").encode())

    def _read(self) -> list[Answer]:
        if not self._path.is_file():
            return []
        lines = self._path.read_bytes().splitlines(keepends=True)
        answers = []
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break  # torn by a kill, and always the last
            try:
                answers.append(json.loads(line))
            except ValueError as error:
                raise AnswerFileError(
                    f"{self._path}, line {number}, is not JSON ({error}); remove the file to begin "
                    "anew"
                ) from error
        return answers

    def rewrite(self, answers: Sequence[Answer]) -> None:
        """Puts these in place of all that is there."""
        write_whole(self._path, _lines(answers))
        self.answers = list(answers)

    def append(self, answers: Sequence[Answer]) -> None:
        """Adds a batch, and returns when it is on the disk."""
        with open_to_append(self._path) as file:
            file.write(_lines(answers))
            file.flush()
            if not in_bucket(self._path):
                os.fsync(file.fileno())
        self.answers.extend(answers)

    def write_summary(self, summary: Mapping[str, Any]) -> epath.Path:
        """Writes `summary.json` beside the answers."""
        path = self._directory / "summary.json"
        write_whole(path, (json.dumps(summary, indent=2) + "\n").encode())
        return path


def _lines(answers: Sequence[Answer]) -> bytes:
    # Not ASCII only: the file is there to be read.
    return "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in answers).encode(
        "utf-8", "surrogatepass"
    )
