"""The curves of a study's runs, from the rows of its results file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asyppo_jax.config import UserError
from experiments.report.statistics import area_under_curve, value_at
from experiments.study.results import (
    DIVERGED,
    RESULTS,
    SETTINGS,
    WARMUP,
    ResultsError,
    Row,
    read_results,
)

Setting = tuple[str, str]  # task and actor


class ReportError(UserError, ValueError):
    """A study that cannot be reported; the message says why and what to do."""


@dataclass
class Curve:
    """One run: the compared metric over its steps."""

    points: dict[int, float] = field(default_factory=dict)
    final_evaluations: int = 1  # of which `final` is the mean
    warmup: int = 0  # steps at its start that update critics only
    diverged: bool = False
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of its steps, by phase

    @property
    def steps(self) -> np.ndarray:
        return np.array(sorted(self.points), float)

    @property
    def values(self) -> np.ndarray:
        return np.array([self.points[step] for step in sorted(self.points)])

    def final(self, last: float | None = None) -> float:
        """The mean of the last evaluations until step `last`; None: until the last step.

        Evaluations lie as far apart as those of the run, so the curve is read between its points
        where `last` is no evaluation.
        """
        end = float(self.steps[-1]) if last is None else last
        distance = float(np.median(np.diff(self.steps))) if len(self.steps) > 1 else 0.0
        at = [end - i * distance for i in range(self.final_evaluations)]
        return float(np.mean([value_at(self.steps, self.values, step) for step in at]))

    def area(self, first: float | None = None, last: float | None = None) -> float:
        """The mean over the steps between two."""
        return area_under_curve(self.steps, self.values, first, last)


class Results(NamedTuple):
    """What a report needs."""

    study: str
    metric: str
    reference: str
    panels: dict[str, list[str]]
    final_evaluations: int
    curves: dict[tuple[Setting, str], dict[int, Curve]]  # by (setting, method), then by seed
    planned: dict[tuple[Setting, str], int]  # seeds

    @property
    def settings(self) -> list[Setting]:
        """Tasks and actors, in the order of the file."""
        return list(dict.fromkeys(setting for setting, _ in self.curves))

    def methods(self, setting: Setting) -> list[str]:
        """The methods with runs there, in the order of the file."""
        return [method for there, method in self.curves if there == setting]

    def finished(self, setting: Setting, method: str) -> dict[int, Curve]:
        """The curves by seed without those of diverged runs, which have no final value."""
        curves = self.curves.get((setting, method), {})
        return {seed: curve for seed, curve in curves.items() if not curve.diverged}


def load(directory: Path) -> Results:
    """The results of a study from its results.csv, with the choices of its study.json.

    Raises:
        ResultsError, ReportError: a file is missing or does not fit the other, or has no runs.
    """
    rows = read_results(directory / RESULTS)
    if not rows:
        raise ReportError(f"{directory / RESULTS} has no runs; the study adds those that ended")
    file = directory / SETTINGS
    if not file.is_file():
        raise ReportError(f"{file} is missing; the study writes it beside {RESULTS}")
    settings = json.loads(file.read_text())
    if settings["name"] != rows[0].study:
        raise ResultsError(
            f"{directory / RESULTS} has rows of the study {rows[0].study!r}, but {file} is of "
            f"{settings['name']!r}; give each study a directory of its own"
        )
    planned = {((task, actor), method): n for task, actor, method, n in settings["planned"]}
    curves = _curves(rows, settings["metric"], settings["final_evaluations"])
    for key in curves:
        if key not in planned:
            (task, actor), method = key
            raise ResultsError(
                f"{directory / RESULTS} has rows of {task} / {actor} / {method}, which {file} does "
                "not know; call the study again, which writes both files"
            )
    return Results(
        study=settings["name"],
        metric=settings["metric"],
        reference=settings["reference"],
        panels=settings["panels"],
        final_evaluations=settings["final_evaluations"],
        curves=curves,
        planned=planned,
    )


def _curves(
    rows: Sequence[Row], metric: str, final_evaluations: int
) -> dict[tuple[Setting, str], dict[int, Curve]]:
    curves: dict[tuple[Setting, str], dict[int, Curve]] = {}
    for row in rows:
        seeds = curves.setdefault(((row.task, row.actor), row.method), {})
        curve = seeds.setdefault(row.seed, Curve(final_evaluations=final_evaluations))
        if row.metric == metric:
            curve.points[row.step] = row.value
        elif row.metric == WARMUP:
            curve.warmup = int(row.value)
        elif row.metric == DIVERGED:
            curve.diverged = bool(row.value)
        elif row.metric.startswith("time/"):
            curve.seconds.setdefault(row.metric, []).append(row.value)
    for (setting, method), seeds in curves.items():
        for seed, curve in seeds.items():
            known = curve.points and np.isfinite(curve.values).all()
            if not curve.diverged and not known:
                where = " / ".join([*setting, method, f"seed {seed}"])
                raise ReportError(
                    f"the run {where} has no {metric}, or one that is not finite; remove its "
                    "folder and call the study again"
                )
    return curves
