"""Results in one tidy file, and the table of their means over seeds."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asyppo_jax.evaluation.value_errors import PositionErrors
from experiments.report.tables import markdown

_COLUMNS = (
    "variant",
    "seed",
    "step",
    "fraction",
    "mse_value",
    "mse_constant",
    "mse_group_mean",
    "var_truth",
    "bias",
    "correlation",
    "sigma_rank_correlation",
    "explained_variance",
)
Row = dict[str, Any]


class Results:
    """The rows of results.csv: one per variant, seed, step and fraction of the answers."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows: list[Row] = []
        if file.is_file():
            with file.open() as lines:
                self.rows = [_numbers(row) for row in csv.DictReader(lines)]

    @property
    def names(self) -> set[str]:
        """The variants that have results."""
        return {row["variant"] for row in self.rows}

    def has(self, variant: str, seed: int, steps: Sequence[int]) -> bool:
        """Whether this variant has been measured with this seed after all these steps."""
        mine = {r["step"] for r in self.rows if (r["variant"], r["seed"]) == (variant, seed)}
        return set(steps) <= mine

    def add(
        self,
        variant: str,
        seed: int,
        measured: Sequence[tuple[int, list[PositionErrors], dict[str, float]]],
    ) -> None:
        """Appends what `replay` yielded to the file."""
        new: list[Row] = []
        for step, positions, metrics in measured:
            for position in positions:
                own = {"variant": variant, "seed": seed, "step": step}
                own["explained_variance"] = metrics["critic/explained_variance"]
                fields = {**position}
                new.append({c: own[c] if c in own else fields[c] for c in _COLUMNS})
        is_new = not self._file.is_file()
        with self._file.open("a", newline="") as lines:
            writer: csv.DictWriter[str] = csv.DictWriter(lines, _COLUMNS)
            if is_new:
                writer.writeheader()
            writer.writerows(new)
        self.rows += new


def _numbers(row: dict[str, str]) -> Row:
    def number(name: str, text: str) -> Any:
        if name == "variant":
            return text
        return None if text == "" else float(text)

    return {name: number(name, text) for name, text in row.items()}


def ratio(rows: Sequence[Row], over: str, from_fraction: float, reduce: Any = np.mean) -> float:
    """The error over another one, both summed over positions from a fraction on; mean of seeds."""
    ratios = []
    for seed in sorted({row["seed"] for row in rows}):
        mine = [r for r in rows if r["seed"] == seed and r["fraction"] >= from_fraction]
        ratios.append(sum(r["mse_value"] for r in mine) / sum(r[over] for r in mine))
    return float(reduce(ratios))


def average(rows: Sequence[Row], column: str, from_fraction: float) -> float:
    """The mean over seeds and positions from a fraction on; absent values are left out."""
    values = [r[column] for r in rows if r["fraction"] >= from_fraction and r[column] is not None]
    return float(np.mean(values)) if values else float("nan")


def table(rows: Sequence[Row], steps: Sequence[int], names: Sequence[str]) -> str:
    """A Markdown table: one line per variant, with the means over seeds.

    Errors are at 15% to 90% of the answers, divided by that of the mean reward ("constant"); the
    range is over seeds. The others are after the last step.
    """
    last = steps[-1]
    head = [
        "critics",
        "seeds",
        *(f"error / constant, step {step}" for step in steps),
        "error / group mean from 30%",
        "bias",
        "correlation",
        "rank of sigma with the error",
        "explained variance",
    ]
    lines = []
    for name in names:
        mine = [row for row in rows if row["variant"] == name]
        if not set(steps) <= {row["step"] for row in mine}:
            continue  # measured after other steps
        cells = [name, str(len({row["seed"] for row in mine}))]
        for step in steps:
            at = [row for row in mine if row["step"] == step]
            low, high = (ratio(at, "mse_constant", 0.15, f) for f in (np.min, np.max))
            cells.append(f"{ratio(at, 'mse_constant', 0.15):.2f} ({low:.2f} to {high:.2f})")
        at = [row for row in mine if row["step"] == last]
        cells += [
            f"{ratio(at, 'mse_group_mean', 0.3):.2f}",
            f"{average(at, 'bias', 0.0):+.2f}",
            f"{average(at, 'correlation', 0.15):.2f}",
            f"{average(at, 'sigma_rank_correlation', 0.15):+.2f}",
            f"{average(at, 'explained_variance', 0.0):.2f}",
        ]
        lines.append(cells)
    return markdown(head, lines)
