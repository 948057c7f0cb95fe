"""What the critics of a study's runs know, from the files that `experiments.value_truth` wrote."""

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from asyppo_jax.config import ConfigError
from experiments.report.tables import markdown

FILE = "truth.csv"
_HEAD = ("task", "actor", "method", "seed", "step", "position", "metric", "value")
_METRICS = (
    "mse_value",
    "mse_constant",
    "mse_group_mean",
    "correlation",
    "correlation_group_mean",
    "bias",
    "sigma_rank_correlation",
)
Key = tuple[str, str, str]  # task, actor, method
Values = dict[str, list[float]]  # metric -> one number per seed


def collect(study: Path) -> int:
    """Adds the runs below `study/runs` to `study/truth.csv`; returns the number of its runs.

    Runs that are only in the file stay there, such as those that another machine has done.
    """
    runs: dict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
    if (study / FILE).is_file():
        with (study / FILE).open(newline="") as content:
            for row in list(csv.reader(content))[1:]:
                runs[tuple(row[:4])].append(tuple(row[4:]))
    for file in (study / "runs").glob("*/*/*/seed_*/value_truth/step_*/value_truth.json"):
        task, actor, method, seed = file.relative_to(study / "runs").parts[:4]
        rows = _rows(json.loads(file.read_text()))
        runs[task, actor, method, seed.removeprefix("seed_")] = rows
    with (study / FILE).open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(_HEAD)
        for run in sorted(runs):
            writer.writerows((*run, *row) for row in runs[run])
    return len(runs)


def _rows(truth: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (truth["step"], position["fraction"], metric, f"{position[metric]:.6g}")
        for position in truth["positions"]
        for metric in _METRICS
        if position.get(metric) is not None
    ]


def truth_report(study: Path, first: float = 0.15) -> str:
    """A table of the critics' errors, means over positions from `first` on, then over seeds.

    Raises:
        ConfigError: there is no such file.
    """
    file = study / FILE
    if not file.is_file():
        raise ConfigError(
            f"{file} does not exist; run `python -m experiments.value_truth --workdir=RUN` on runs "
            "of the study, then this command with --collect"
        )
    lines = []
    for (task, actor, method), values in _read(file, first).items():
        constant = np.array(values["mse_constant"])
        ratios = [np.array(values[name]) / constant for name in ("mse_value", "mse_group_mean")]
        cells = [f"{x.mean():.2f} ({x.min():.2f} to {x.max():.2f})" for x in ratios]
        # Without an ensemble there is no σ.
        numbers = [values.get(name) for name in ("correlation", "bias", "sigma_rank_correlation")]
        cells += [f"{np.mean(x):.2f}" if x else "" for x in numbers]
        lines.append([task, actor, method, str(len(constant)), *cells])
    head = ["task", "actor", "method", "seeds", "critics", "group mean", "correlation", "bias"]
    return markdown([*head, "σ and error"], lines)


def _read(file: Path, first: float) -> dict[Key, Values]:
    """By method, the mean of each metric over positions of each seed."""
    by_seed: dict[Key, dict[str, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    with file.open(newline="") as content:
        for row in csv.DictReader(content):
            if float(row["position"]) >= first:
                key = (row["task"], row["actor"], row["method"])
                by_seed[key][row["metric"]][row["seed"]].append(float(row["value"]))
    return {
        key: {
            metric: [float(np.mean(numbers)) for numbers in seeds.values()]
            for metric, seeds in metrics.items()
        }
        for key, metrics in by_seed.items()
    }
