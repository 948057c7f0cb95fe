"""Runs of a study that were done elsewhere: their rows in its results.csv, without directories."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asyppo_jax.config import Config, ConfigError
from asyppo_jax.config.reading import flatten
from experiments.study.results import (
    DIVERGED,
    RESULTS,
    SETTINGS,
    ResultsError,
    Row,
    Status,
    read_results,
)
from experiments.study.study import Study, StudyRun, settings_of


class Earlier(NamedTuple):
    """A run that has ended elsewhere."""

    status: Status
    rows: list[Row]


def read_earlier(
    study: Study, runs: Sequence[StudyRun], directory: Path
) -> dict[StudyRun, Earlier]:
    """The runs of results.csv in a directory; its study.json says what they were made with.

    Raises:
        ResultsError: one of both files cannot be used, or has a run that the study does not have.
        ConfigError: a run was made with other settings than those of the study.
    """
    rows = defaultdict(list)
    for row in read_results(directory / RESULTS, study.name):
        rows[row.task, row.actor, row.method, row.seed].append(row)
    by_key = {(*run.setting, run.seed): run for run in runs}
    for key in rows:
        if key not in by_key:
            raise ResultsError(
                f"{directory / RESULTS} has the run {' / '.join(map(str, key))}, which the study "
                "does not have; add it to the study, or remove its rows"
            )
    earlier = {by_key[key]: _earlier(directory, by_key[key], rows[key]) for key in rows}
    _check_settings(study, earlier, directory / SETTINGS)
    return earlier


def _earlier(directory: Path, run: StudyRun, rows: list[Row]) -> Earlier:
    ends = [row for row in rows if row.metric == DIVERGED]
    if len(ends) != 1 or (not ends[0].value and ends[0].step != run.config.num_steps):
        steps = f"{ends[0].step} steps" if ends else f"no row of {DIVERGED}"
        raise ResultsError(
            f"{directory / RESULTS} has {steps} of the run {run.name}, whose config.num_steps is "
            f"{run.config.num_steps}; remove its rows, and it is done again"
        )
    return Earlier(Status("diverged" if ends[0].value else "finished"), rows)


def _check_settings(study: Study, runs: dict[StudyRun, Earlier], file: Path) -> None:
    """Raises `ConfigError` if study.json names other settings for the runs."""
    before = json.loads(file.read_text()) if file.is_file() else {}
    if "settings" not in before:
        raise ResultsError(f"{file} does not say with which settings its runs were made")
    now = settings_of(study)
    # A setting that did not exist then had the effect of today's default.
    defaults = json.loads(json.dumps(flatten(Config())))
    was, is_now = defaults | before["settings"]["base"][""], now["base"][""]
    if changed := [name for name in is_now if is_now[name] != was[name]]:
        listed = ", ".join(f"{name} from {was[name]} to {is_now[name]}" for name in changed)
        raise ConfigError(
            f"since the runs of {file.parent} were made, the base {study.base} has changed "
            f"{listed}; change it back, or remove their rows, and they are done again"
        )
    for part, name in dict.fromkeys(part for run in runs for part in _parts(run)):
        was, is_now = before["settings"][part].get(name), now[part][name]
        if was != is_now:
            raise ConfigError(
                f"the runs of {file.parent} were made when the {part.removesuffix('s')} {name!r} "
                f"changed {was}, and now it changes {is_now}; remove their rows, and they are done "
                "again"
            )
    if before["threads"] != study.threads:
        raise ConfigError(
            f"the runs of {file.parent} were made with {before['threads']} threads, the study has "
            f"{study.threads}; set threads = {before['threads']}"
        )


def _parts(run: StudyRun) -> list[tuple[str, str]]:
    return list(zip(("tasks", "actors", "methods"), run.setting, strict=True))
