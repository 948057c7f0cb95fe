"""Graded answers in a JSONL file that survives a kill: a batch is written completely or dropped.

One line per answer: first all answers of problem 0, then those of problem 1, and so on. The file
`settings.json` next to it has the settings of the answers. Other settings are refused, because old
and new answers could not be combined.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict, get_args

from etils import epath

from asyppo_jax.config import UserError
from asyppo_jax.runtime.paths import absolute, in_bucket, open_to_append, write_whole

# right, wrong: the verdict of the grader. no_answer: the completion has no final answer. ungraded:
# the grader failed or took too long. The last two count as wrong, and are also counted separately.
Verdict = Literal["right", "wrong", "no_answer", "ungraded"]


class AnswerFileError(UserError, ValueError):
    """An answer file that cannot be continued; the message names it and says how to fix it."""


class Answer(TypedDict):
    """One completion and its verdict."""

    index: int  # of the problem, in the order of the benchmark
    sample: int  # from 0 to k - 1
    problem: str
    answer: str  # the reference
    completion: str
    verdict: Verdict
    score: float  # in [0, 1]; 0 if not graded
    truncated: bool  # no stop token within the maximum length
    length: int  # tokens, stop token included
    # What the grader says (`math` does), "" if nothing: the final answer that it found, the
    # reference as it compared it, and why the answer is right or wrong.
    extracted: NotRequired[str]
    compared: NotRequired[str]
    reason: NotRequired[str]


class AnswerFile:
    """`directory/answers.jsonl`, and `settings.json` in the same directory."""

    def __init__(
        self, directory: str, settings: Mapping[str, Any], inputs: Mapping[str, str] | None = None
    ) -> None:
        """Opens a new or an unfinished file.

        `inputs` says what a setting is the hash of: {"weights": "the weights of runs/x"}. Answers
        of an earlier version may have no such hash, and are continued. The path of a checkpoint may
        differ if its weights are the same.

        Raises:
            AnswerFileError: the file has answers made with other settings or from inputs that have
                changed since, or a broken line.
        """
        self._directory = absolute(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._path = self._directory / "answers.jsonl"
        self._check_settings(dict(settings), dict(inputs or {}))
        self.answers = self._read()

    def _check_settings(self, settings: dict[str, Any], inputs: dict[str, str]) -> None:
        file = self._directory / "settings.json"
        now = json.loads(json.dumps(settings))
        if self._path.is_file() and file.is_file():
            try:
                before = dict(json.loads(file.read_text()))
            except (ValueError, TypeError) as error:
                raise AnswerFileError(
                    f"{file} is damaged ({error}); remove it and answers.jsonl to start again"
                ) from error
            same_weights = "weights" in before and before["weights"] == now.get("weights")
            may_differ = {*inputs, *({"checkpoint"} if same_weights else ())}  # it was moved
            for name in sorted((before.keys() | now.keys()) - may_differ):
                if before.get(name) != now.get(name):
                    raise AnswerFileError(
                        f"{self._path} has answers made with {name} = {before.get(name)!r}, but "
                        f"now it is {now.get(name)!r}; set another --output, or remove that file"
                    )
            for name, words in inputs.items():
                if before.get(name, now[name]) != now[name]:
                    raise AnswerFileError(
                        f"{words} have changed since answers were written to {self._path}; set "
                        "another --output, or remove that file to start again"
                    )
        write_whole(file, (json.dumps(now, indent=2) + "\n").encode())

    def _read(self) -> list[Answer]:
        if not self._path.is_file():
            return []
        lines = self._path.read_bytes().splitlines(keepends=True)
        answers = []
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break  # cut off by a kill; only the last line can be
            try:
                answer = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise AnswerFileError(
                    f"{self._path}, line {number}, is not JSON ({error}); remove the file to "
                    "start again"
                ) from error
            if not _is_answer(answer):
                raise AnswerFileError(
                    f"{self._path}, line {number}, is not an answer; remove the file to start again"
                )
            answers.append(answer)
        return answers

    def rewrite(self, answers: Sequence[Answer]) -> None:
        """Replaces the content of the file by these answers."""
        write_whole(self._path, _lines(answers))
        self.answers = list(answers)

    def append(self, answers: Sequence[Answer]) -> None:
        """Appends a batch; returns when it is on disk."""
        with open_to_append(self._path) as file:
            file.write(_lines(answers))
            file.flush()
            if not in_bucket(self._path):
                os.fsync(file.fileno())
        self.answers.extend(answers)

    def write_summary(self, summary: Mapping[str, Any]) -> epath.Path:
        """Writes `summary.json` in the directory of the answers; returns its path."""
        path = self._directory / "summary.json"
        write_whole(path, (json.dumps(summary, indent=2) + "\n").encode())
        return path


_FIELDS = {
    "index": int,
    "sample": int,
    "problem": str,
    "answer": str,
    "completion": str,
    "verdict": str,
    "score": int | float,
    "truncated": bool,
    "length": int,
}


def _is_answer(value: Any) -> bool:
    return isinstance(value, dict) and (
        all(isinstance(value.get(name), kind) for name, kind in _FIELDS.items())
        and value["verdict"] in get_args(Verdict)
        and 0 <= value["score"] <= 1
    )


def _lines(answers: Sequence[Answer]) -> bytes:
    # Not escaped to ASCII, because people read this file.
    return "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in answers).encode(
        "utf-8", "surrogatepass"
    )
