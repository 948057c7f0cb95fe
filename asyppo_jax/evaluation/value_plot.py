"""The errors of `value_errors` by position, as a PNG file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asyppo_jax.evaluation.value_errors import PositionErrors
from asyppo_jax.runtime.figures import BLUE, GREEN, GREY, SKY, VERMILION, save_png


def plot_value_errors(
    positions: Sequence[PositionErrors], path: epath.PathLike, *, title: str = ""
) -> None:
    """Draws squared errors, correlations, and bias against the position in the answer."""
    save_png(value_figure(positions, title), path)


def value_figure(positions: Sequence[PositionErrors], title: str = "") -> Figure:
    """Three panels over the position in the answer (%)."""
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    x = 100 * np.array([p["fraction"] for p in positions])

    def draw(axes, key: str, label: str, color: str, style: str = "-") -> None:
        y = np.array([np.nan if (v := _get(p, key)) is None else v for p in positions], float)
        if np.isfinite(y).any():
            axes.plot(x, y, style, color=color, label=label, marker="o", markersize=3.5)

    errors, correlations, bias = panels
    draw(errors, "mse_value", "critics' mean", BLUE)
    for k in range(len(positions[0]["mse_each"])):
        draw(errors, f"mse_each.{k}", "each critic" if k == 0 else "", SKY, ":")
    draw(errors, "mse_group_mean", "group's other answers", VERMILION)
    draw(errors, "mse_constant", "mean reward", GREY, "--")
    errors.set_title("squared error against the true value")
    errors.axhline(0, color=GREY, linewidth=0.6)
    draw(correlations, "correlation", "critics' mean", BLUE)
    draw(correlations, "correlation_group_mean", "group's other answers", VERMILION)
    draw(correlations, "sigma_rank_correlation", "rank of σ with the error", GREEN)
    correlations.set_title("correlation with the true value")
    correlations.set_ylim(-1.05, 1.05)
    draw(bias, "value_truth", "true value", GREY, "--")
    draw(bias, "bias", "bias of the critics' mean", BLUE)
    bias.set_title("bias")
    for axes in panels:
        axes.set_xlabel("position in the answer (%)")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _get(position: PositionErrors, key: str) -> float | None:
    fields: dict[str, Any] = {**position}
    name, _, index = key.partition(".")
    return fields[name][int(index)] if index else fields[name]
