"""Saved rollouts as one self-contained HTML page."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from asyppo_jax.runs.rollout_files import RolloutFileError, SavedAnswer, read_rollout_file

_TEMPLATE = Path(__file__).with_name("page.html")
_PLACEHOLDER = "__ROLLOUTS__"
_DIGITS = 4  # significant digits; the page shows no more


def read_rollouts(places: Sequence[str]) -> list[SavedAnswer]:
    """The answers in rollout files; a directory means its files in the order of their names.

    Raises:
        RolloutFileError: a directory has no such files, or a file cannot be read.
    """
    files: list[epath.Path] = []
    for path in map(epath.Path, places):
        files_at_path = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files_at_path:
            raise RolloutFileError(
                f"{path} has no step_*.jsonl; give the folder rollouts of a run with "
                "config.log.rollouts_every = n"
            )
        files += files_at_path
    return [answer for file in files for answer in read_rollout_file(file)]


def render(answers: Sequence[SavedAnswer]) -> str:
    """The HTML page, with the answers in it as JSON."""
    data = json.dumps([_rounded(dataclasses.asdict(answer)) for answer in answers])
    # "<" is escaped, so that an answer cannot end the script element or open a comment in it.
    return _TEMPLATE.read_text(encoding="utf-8").replace(_PLACEHOLDER, data.replace("<", "\\u003c"))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_rounded(x) for x in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
