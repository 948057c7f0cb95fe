"""The pilot's report: accuracy over the steps, spread over seeds, and power."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from etils import epath

from asyppo_jax.runs.metrics import METRICS_FILE, read_metrics
from experiments.asyppo_study.power import paired_std, pooled, power, seen_difference

FINAL_EVALUATIONS = 5  # the final accuracy is the mean of so many last evaluations
DIFFERENCE, SEEDS = 0.03, 8  # what the study should see, and with how many seeds
_SHOWN = 6  # points of a curve in the report


class RunName(NamedTuple):
    """What distinguishes the runs of the pilot."""

    task: str
    actor: str
    method: str
    seed: int


class Curve(NamedTuple):
    """The evaluations of a run."""

    steps: list[int]
    accuracies: list[float]
    seconds_per_step: float  # without the first evaluation and the first step, which compile

    @property
    def final(self) -> float:
        """The mean accuracy of the last evaluations."""
        return mean(self.accuracies[-FINAL_EVALUATIONS:])


def read_curve(workdir: Path) -> Curve:
    """The curve of a finished run."""
    rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
    evaluated = [row for row in rows if "evaluate/accuracy" in row]
    first, last = rows[min(2, len(rows) - 1)], rows[-1]
    seconds = last["time/elapsed_s"] - first["time/elapsed_s"]
    return Curve(
        steps=[row["step"] for row in evaluated],
        accuracies=[row["evaluate/accuracy"] for row in evaluated],
        seconds_per_step=seconds / max(1, last["step"] - first["step"]),
    )


def report(curves: Mapping[RunName, Curve]) -> str:
    """A table of all methods, and the power of a comparison of two of them, per task and actor."""
    lines = [
        "| task | actor | method | seeds | accuracy after step | final | std over seeds | s/step |"
    ]
    lines.append("|" + "---|" * 8)
    settings = sorted({(name.task, name.actor, name.method) for name in curves})
    for task, actor, method in settings:
        mine = {n.seed: c for n, c in curves.items() if n[:3] == (task, actor, method)}
        finals = [curve.final for curve in mine.values()]
        spread = f"{stdev(finals):.3f}" if len(finals) > 1 else ""
        cells = [task, actor, method, str(len(mine)), _mean_curve(list(mine.values()))]
        cells += [f"{mean(finals):.3f}", spread]
        cells.append(f"{mean(c.seconds_per_step for c in mine.values()):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    for task, actor in sorted({setting[:2] for setting in settings}):
        lines += _power_lines(curves, task, actor)
    return "\n".join(lines)


def _mean_curve(curves: list[Curve]) -> str:
    """The mean accuracy after some evenly spaced evaluations, such as "0: 0.301, 30: 0.42"."""
    count = min(len(curve.steps) for curve in curves)
    chosen = sorted({round(i * (count - 1) / (_SHOWN - 1)) for i in range(_SHOWN)})
    points = [(curves[0].steps[i], mean(c.accuracies[i] for c in curves)) for i in chosen]
    return ", ".join(f"{step}: {accuracy:.3f}" for step, accuracy in points)


def _power_lines(curves: Mapping[RunName, Curve], task: str, actor: str) -> list[str]:
    finals: dict[str, dict[int, float]] = {}
    for name, curve in curves.items():
        if (name.task, name.actor) == (task, actor):
            finals.setdefault(name.method, {})[name.seed] = curve.final
    pairs = [
        paired_std(finals[first], finals[second])
        for first, second in itertools.combinations(sorted(finals), 2)
        if len(finals[first].keys() & finals[second].keys()) > 1
    ]
    if not pairs:
        return []
    std = pooled(pairs)
    return [
        "",
        f"{task}, {actor}: the difference of two methods has a std of {std:.3f} over seeds; with "
        f"{SEEDS} seeds a difference of {DIFFERENCE:.2f} is seen with a probability of "
        f"{power(DIFFERENCE, std, SEEDS):.2f}, and one of {seen_difference(std, SEEDS):.3f} "
        "with 0.80",
    ]
