"""The errors of some variants over the position in the answer, after each measured step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.critics.results import Row

# The colours of Okabe and Ito, distinguishable with all common forms of colour blindness.
_STYLES = {
    "as in the paper": ("#6b6b6b", "-"),
    "head from rollout": ("#E69F00", "-"),
    "head, shrunken anchor": ("#56B4E9", "-"),
    "head, 4 epochs, bce": ("#0072B2", "-"),
    "head, shrunken anchor, bce": ("#009E73", "-"),
    "head, shrunken anchor, bce, 4 epochs": ("#CC79A7", "-"),
}


def plot(rows: Sequence[Row], file: Path, steps: Sequence[int]) -> None:
    """Draws one panel per step: squared errors over that of the mean reward, mean of seeds."""
    figure = Figure(figsize=(3.4 * len(steps), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(steps), sharey=True))
    for axes, step in zip(panels, steps, strict=True):
        at = [row for row in rows if row["step"] == step and row["fraction"] > 0]
        names = [name for name in _STYLES if any(row["variant"] == name for row in at)]
        for name in names:
            color, style = _STYLES[name]
            _draw(axes, [r for r in at if r["variant"] == name], "mse_value", name, color, style)
        if at:
            reference = [r for r in at if r["variant"] == at[0]["variant"]]
            _draw(axes, reference, "mse_group_mean", "group's other answers", "#D55E00", ":")
        axes.axhline(1, color="#6b6b6b", linewidth=0.8, linestyle="--")
        axes.set_title(f"after step {step}")
        axes.set_xlabel("position in the answer (%)")
        axes.set_ylim(0, 2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("squared error / that of the mean reward")
    panels[-1].legend(frameon=False, fontsize=7)
    figure.savefig(file, dpi=130, metadata={"Software": None})


def _draw(axes, rows: Sequence[Row], column: str, label: str, color: str, style: str) -> None:
    fractions = sorted({row["fraction"] for row in rows})
    means = []
    for fraction in fractions:
        here = [row for row in rows if row["fraction"] == fraction]
        means.append(sum(r[column] for r in here) / sum(r["mse_constant"] for r in here))
    axes.plot(100 * np.array(fractions), means, style, color=color, label=label, marker=".")
