"""Saved rollouts as one HTML page that needs nothing beside it."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from asyppo_jax.runs.rollout_files import RolloutFileError, SavedAnswer, read_rollout_file

_TEMPLATE = Path(__file__).with_name("page.html")
_PLACE = "__ROLLOUTS__"
_DIGITS = 4  # significant ones; a page shows no more


def read_rollouts(places: Sequence[str]) -> list[SavedAnswer]:
    """The answers of files, and of all the files of directories, in order of their names.

    Raises:
        RolloutFileError: a directory without such files, or a file that cannot be read.
    """
    files: list[epath.Path] = []
    for place in map(epath.Path, places):
        found = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
        if not found:
            raise RolloutFileError(
                f"{place} holds no step_*.jsonl; give the folder rollouts of a run with "
                "config.log.rollouts_every = n"
            )
        files += found
    return [answer for file in files for answer in read_rollout_file(file)]


def render(answers: Sequence[SavedAnswer]) -> str:
    """The page, with the answers as JSON inside of it."""
    data = json.dumps([_short(dataclasses.asdict(answer)) for answer in answers])
    # No text of an answer may end the script element that holds it, nor open a comment there.
    return _TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, data.replace("<", "\\u003c"))


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_short(x) for x in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
