"""Saved rollouts as one self-contained HTML page."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from asyppo_jax.runs.rollout_files import RolloutFileError, SavedAnswer, read_rollout_file

_HERE = Path(__file__).parent
_STYLE, _SCRIPTS = "page.css", ("answers.js", "cards.js", "controls.js", "keys.js")
_DIGITS = 4  # significant digits; the page shows no more


@dataclass(frozen=True)
class RunAnswers:
    """The saved answers of one run."""

    name: str  # its directory; with more parents where two runs would have one name
    settings: str  # what identifies the run in a line of text; "" without a config.json
    answers: list[SavedAnswer]


def read_rollouts(places: Sequence[str]) -> list[RunAnswers]:
    """The answers in rollout files, by run; a directory means its files, ordered by name.

    Raises:
        RolloutFileError: a directory has no such files, or a file cannot be read.
    """
    files: dict[epath.Path, None] = {}  # a file that is given twice is read once
    for path in map(epath.Path, places):
        folder = path / "rollouts" if (path / "rollouts").is_dir() else path  # a run's directory
        files_at_path = sorted(folder.glob("*.jsonl")) if folder.is_dir() else [path]
        if not files_at_path:
            raise RolloutFileError(
                f"{path} has no step_*.jsonl or heldout_*.jsonl; give the folder rollouts of a run "
                "with config.log.rollouts_every = n or config.log.heldout_prompts = n"
            )
        files |= dict.fromkeys(file.resolve() for file in files_at_path)
    by_run: dict[epath.Path, list[SavedAnswer]] = {}
    for file in files:
        run = file.parent.parent if file.parent.name == "rollouts" else file.parent
        by_run.setdefault(run, []).extend(read_rollout_file(file))
    names = _short_names(list(by_run))
    return [
        RunAnswers(name, _describe_settings(run / "config.json"), answers)
        for name, (run, answers) in zip(names, by_run.items(), strict=True)
    ]


def _short_names(directories: Sequence[epath.Path]) -> list[str]:
    """The shortest ends of the paths, all of one number of parts, that are different names."""
    longest = max(len(path.parts) for path in directories)
    for count in range(1, longest + 1):
        names = ["/".join(path.parts[-count:]) for path in directories]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("the directories are different paths")


def _describe_settings(file: epath.Path) -> str:
    """A run's method, seed and model in a line, from its config.json; "" if there is none."""
    if not file.is_file():
        return ""
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise RolloutFileError(f"{file} is not JSON ({error}); restore or remove it") from error
    algorithm, actor = settings.get("algorithm", {}), settings.get("actor", {})
    critics = algorithm.get("num_critics")
    facts = {
        f"{critics} critic{'' if critics == 1 else 's'}": critics is not None,
        str(algorithm.get("advantages")).upper(): "advantages" in algorithm,
        f"seed {settings.get('seed')}": "seed" in settings,
        str(actor.get("path")): "path" in actor,
    }
    return " · ".join(fact for fact, known in facts.items() if known)


def render(runs: Sequence[RunAnswers]) -> str:
    """The HTML page, with the answers in it as JSON."""
    answers = [
        {"run": index, **_rounded(dataclasses.asdict(answer))}
        for index, run in enumerate(runs)
        for answer in run.answers
    ]
    named = [{"name": run.name, "settings": run.settings} for run in runs]
    parts = {
        "__STYLE__": _read(_STYLE),
        "__SCRIPT__": "\n".join(map(_read, _SCRIPTS)),
        # "<" is escaped, so that an answer cannot end the script element or open a comment in it.
        "__ROLLOUTS__": json.dumps({"runs": named, "answers": answers}).replace("<", "\\u003c"),
    }
    page = _read("page.html")
    for placeholder, text in parts.items():  # the answers last: they may hold a placeholder
        page = page.replace(placeholder, text, 1)
    return page


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_rounded(x) for x in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
