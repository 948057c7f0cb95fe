"""The figures of a report: curves, differences to the reference, and ablation panels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asyppo_jax.runtime.figures import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    save_png,
)
from experiments.report.curves import Curve, Results, Setting
from experiments.report.statistics import Estimate, mean, paired_differences
from experiments.report.tables import finals

_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)
_STYLES = ("-", "--", ":", "-.")  # of the methods after the seventh, and so on


def draw(results: Results, directory: Path) -> list[Path]:
    """Writes curves.png, differences.png and, if the study has panels, ablations.png."""
    figures = {"curves.png": curves(results), "differences.png": differences(results)}
    if results.panels:
        figures["ablations.png"] = ablations(results)
    for name, figure in figures.items():
        save_png(figure, directory / name, dpi=130)
    return [directory / name for name in figures]


def curves(results: Results) -> Figure:
    """A row per panel, a column per task and actor: the mean of seeds with its 95% band."""
    panels = results.panels or {"": list(dict.fromkeys(m for _, m in results.curves))}
    figure, grid = _grid(len(panels), len(results.settings), 4.2, 3.0)
    for axes, setting, title, methods in _drawn(results, grid, panels):
        for method in methods:
            index = panels[title].index(method)  # its color is that of the panel's other axes
            _draw_curve(axes, results.finished(setting, method), method, index)
        axes.set_title(" · ".join(filter(None, [*setting, title])), fontsize=9)
        axes.set_xlabel("step")
        _style(axes)
        if axes.lines:
            axes.legend(frameon=False, fontsize=7)
    for row in grid:
        row[0].set_ylabel(results.metric)
    return figure


def _drawn(
    results: Results, grid: np.ndarray, panels: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Any, Setting, str, list[str]]]:
    """The axes of each panel (a row) and setting (a column), with the methods that have runs there.

    Axes without such a method are left empty.
    """
    for row, (title, methods) in zip(grid, panels.items(), strict=True):
        for axes, setting in zip(row, results.settings, strict=True):
            if there := [m for m in methods if m in results.methods(setting)]:
                yield axes, setting, title, there
            else:
                axes.set_axis_off()


def _draw_curve(axes: Any, by_seed: dict[int, Curve], method: str, index: int) -> None:
    if not by_seed:
        return
    steps = sorted({step for curve in by_seed.values() for step in curve.points})
    points = [
        mean(np.array([c.points[step] for c in by_seed.values() if step in c.points]))
        for step in steps
    ]
    color, style = _COLORS[index % len(_COLORS)], _STYLES[index // len(_COLORS) % len(_STYLES)]
    axes.plot(steps, [p.value for p in points], style, color=color, linewidth=1.6, label=method)
    low, high = [p.low for p in points], [p.high for p in points]
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


def differences(results: Results) -> Figure:
    """A column per task and actor: each method's difference to the reference, by seed."""
    methods = [m for m in dict.fromkeys(m for _, m in results.curves) if m != results.reference]
    figure, grid = _grid(1, len(results.settings), 4.2, 0.9 + 0.28 * max(1, len(methods)))
    for axes, setting, _, there in _drawn(results, grid, {"": methods}):
        base = finals(results, setting, results.reference)
        estimates = [
            mean(paired_differences(finals(results, setting, method), base)) for method in there
        ]
        _draw_intervals(axes, there, estimates)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle="--")
        axes.set_title(" · ".join(setting), fontsize=9)
        axes.set_xlabel(f"difference to {results.reference}")
    return figure


def ablations(results: Results) -> Figure:
    """A row per panel of the study, a column per task and actor: final values with intervals."""
    longest = max(map(len, results.panels.values()))
    figure, grid = _grid(
        len(results.panels), len(results.settings), 4.2, 0.9 + 0.28 * max(1, longest)
    )
    for axes, setting, title, methods in _drawn(results, grid, results.panels):
        estimates = [
            mean(np.array(list(finals(results, setting, method).values()))) for method in methods
        ]
        _draw_intervals(axes, methods, estimates)
        axes.set_title(" · ".join([*setting, title]), fontsize=9)
        axes.set_xlabel(f"final {results.metric}")
    return figure


def _draw_intervals(axes: Any, methods: Sequence[str], estimates: Sequence[Estimate]) -> None:
    """One point per method with its interval, the first at the top; a method without runs: none."""
    for place, estimate in enumerate(estimates):
        if np.isfinite(estimate.low):
            axes.plot([estimate.low, estimate.high], [place, place], color=BLUE, linewidth=2)
        if np.isfinite(estimate.value):
            axes.plot([estimate.value], [place], "o", color=BLUE, markersize=5)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    _style(axes)


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _style(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
