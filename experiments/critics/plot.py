"""The errors of some variants over the position in the answer, after each measured step."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asyppo_jax.runtime.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, save_png
from experiments.critics.results import Row

_COLORS = {
    "as in the paper": GREY,
    "head from rollout": ORANGE,
    "head, shrunken anchor": SKY,
    "head, 4 epochs, bce": BLUE,
    "head, shrunken anchor, bce": GREEN,
    "head, shrunken anchor, bce, 4 epochs": PURPLE,
}


def plot(rows: Sequence[Row], file: Path, steps: Sequence[int]) -> None:
    """Draws one panel per step: squared errors over that of the mean reward, mean of seeds."""
    figure = Figure(figsize=(3.4 * len(steps), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(steps), sharey=True))
    for axes, step in zip(panels, steps, strict=True):
        at = [row for row in rows if row["step"] == step and row["fraction"] > 0]
        names = [name for name in _COLORS if any(row["variant"] == name for row in at)]
        for name in names:
            rows_of_name = [r for r in at if r["variant"] == name]
            _draw(axes, rows_of_name, "mse_value", name, _COLORS[name], "-")
        if at:
            reference = [r for r in at if r["variant"] == at[0]["variant"]]
            _draw(axes, reference, "mse_group_mean", "group's other answers", VERMILION, ":")
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
        axes.set_title(f"after step {step}")
        axes.set_xlabel("position in the answer (%)")
        axes.set_ylim(0, 2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("squared error / that of the mean reward")
    panels[-1].legend(frameon=False, fontsize=7)
    save_png(figure, file, dpi=130)


def _draw(axes, rows: Sequence[Row], column: str, label: str, color: str, style: str) -> None:
    fractions = sorted({row["fraction"] for row in rows})
    means = []
    for fraction in fractions:
        here = [row for row in rows if row["fraction"] == fraction]
        means.append(sum(r[column] for r in here) / sum(r["mse_constant"] for r in here))
    axes.plot(100 * np.array(fractions), means, style, color=color, label=label, marker=".")
