"""The curves of a run as PNG files, drawn from its `metrics.jsonl`.

Figures are created without pyplot, so that the settings and open figures of a notebook do not
change.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from asyppo_jax.runs.metrics import METRICS_FILE, MetricsError, read_metrics
from asyppo_jax.runtime.figures import BLUE, GREEN, GREY, GRID, INK, SKY, VERMILION, save_png
from asyppo_jax.runtime.paths import absolute

PANEL_WIDTH, PANEL_HEIGHT = 3.35, 1.95  # inches, of the axes without labels
LEFT, RIGHT, TOP, BOTTOM, GAP_X, GAP_Y = 0.72, 1.05, 1.25, 0.55, 1.25, 0.95  # inches, around them
SMOOTH_FROM = 30  # points; shorter curves are not smoothed


@dataclass(frozen=True)
class Curve:
    metric: str
    label: str = ""  # empty: show the last value instead
    color: str = BLUE
    width: float = 1.8
    interval: tuple[str, str] | None = None  # the metrics of its lower and upper end


@dataclass(frozen=True)
class Panel:
    title: str
    curves: tuple[Curve, ...]
    unit: str = ""
    points: bool = False  # mark each point and do not smooth
    percent: bool = False
    from_zero: bool = False  # the y axis starts at 0
    lowest: float | None = None  # values below are not shown


def plot_run(
    workdir: epath.PathLike, about: str = "", measure: str = "accuracy"
) -> list[epath.Path]:
    """Draws `plots.png` (all curves) and `accuracy.png` (held-out results) into `workdir`.

    `about` is printed below the run's name, such as "seed 0 · cpu". `measure` names the held-out
    results (`config.reward.measure`).

    Returns the paths of the files. Curves without data are left out: a run without critics has no
    panels for them, and a run without evaluations has no `accuracy.png`. Raises `MetricsError` if
    there is nothing to draw.
    """
    workdir = absolute(workdir)
    rows = read_metrics(workdir / METRICS_FILE)
    overview = overview_figure(workdir.name, rows, about, measure)
    if overview is None:
        raise MetricsError(f"{workdir / METRICS_FILE} has nothing to draw; run at least one step")
    held_out = accuracy_figure(workdir.name, rows, measure)
    figures = {"plots.png": overview, "accuracy.png": held_out}
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths.append(workdir / name)
            save_png(figure, paths[-1])
    return paths


def overview_figure(
    run: str, rows: Sequence[dict[str, Any]], about: str = "", measure: str = "accuracy"
) -> Figure | None:
    """A figure with one panel per quantity in `rows` (see `read_metrics`); None without any."""
    panels = [panel for panel in _panels(rows, measure) if _curves_with_data(panel, rows)]
    if not panels:
        return None
    columns = len(panels) if len(panels) < 4 else 2 if len(panels) == 4 else 3
    figure, axes = _grid(len(panels), columns)
    for index, (panel, ax) in enumerate(zip(panels, axes, strict=True)):
        _draw(ax, panel, rows)
        if index + columns >= len(panels):
            ax.set_xlabel("step", color=GREY, fontsize=8.5)
    height = figure.get_figheight()
    x, y = LEFT / figure.get_figwidth(), 1 - 0.22 / height
    figure.text(x, y, run, fontsize=16, fontweight="bold", color=INK, va="top")
    y -= 0.35 / height
    figure.text(x, y, _headline(rows, about), fontsize=9.5, color=GREY, va="top")
    return figure


def accuracy_figure(
    run: str, rows: Sequence[dict[str, Any]], measure: str = "accuracy"
) -> Figure | None:
    """A figure of the held-out results, sized for a README; None if they were never measured."""
    panel = _accuracy_panel(f"{run}: held-out {measure}", rows)
    if not _curves_with_data(panel, rows):
        return None
    figure = Figure(figsize=(6.2, 3.4), facecolor="white")
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0.09, 0.14, 0.8, 0.74))
    _draw(ax, panel, rows)
    ax.set_xlabel("step", color=GREY, fontsize=8.5)
    return figure


def _panels(rows: Sequence[dict[str, Any]], measure: str) -> list[Panel]:
    value_std = (
        Curve("ensemble/value_std_p90", "90th pct.", VERMILION),
        Curve("ensemble/value_std_p50", "median", BLUE),
    )
    clipped = (
        Curve("actor/clip_fraction_low", "low", BLUE),
        Curve("actor/clip_fraction_high", "high", VERMILION),
    )
    no_spread = "rollout/groups_without_spread"
    length, gap = "rollout/completion_length_mean", "rollout/log_prob_gap"
    return [
        _accuracy_panel(f"Held-out {measure}", rows),
        Panel("Reward", (Curve("rollout/reward_mean"),), "mean"),
        Panel("Groups without spread", (Curve(no_spread),), "all rewards equal", from_zero=True),
        Panel("Entropy", (Curve("actor/entropy"),), "nats per token", from_zero=True),
        Panel("Explained variance", _explained_variance(rows), "critics", lowest=-1.0),
        Panel("Value std", value_std, "between critics", from_zero=True),
        Panel("Clip fraction", clipped, "of real tokens", from_zero=True),
        Panel("Completion length", (Curve(length),), "tokens"),
        Panel("Log-prob gap", (Curve(gap),), "learner vs. sampler, nats", from_zero=True),
    ]


def _accuracy_panel(title: str, rows: Sequence[dict[str, Any]]) -> Panel:
    accuracy = _series(rows, "evaluate/accuracy")[1]
    ends = accuracy[np.isfinite(accuracy)][[0, -1]] if np.isfinite(accuracy).any() else []
    gain = " \N{RIGHTWARDS ARROW} ".join(f"{value:.1%}" for value in ends)
    curve = Curve("evaluate/accuracy", interval=("evaluate/accuracy_low", "evaluate/accuracy_high"))
    return Panel(title, (curve,), gain, points=True, percent=True)


def _explained_variance(rows: Sequence[dict[str, Any]]) -> tuple[Curve, ...]:
    """Its parts and their sum; for runs that did not write the parts, that of each critic."""
    parts = (
        Curve("critic/explained_between_prompts", "between prompts", BLUE, 1.2),
        Curve("critic/explained_between_answers", "between answers", VERMILION, 1.2),
        Curve("critic/explained_between_tokens", "within answers", GREEN, 1.2),
    )
    if any(parts[0].metric in row for row in rows):
        return (*parts, Curve("critic/explained_variance", "in all", INK))
    metrics = {
        name for row in rows for name in row if re.fullmatch(r".*/explained_variance_\d+", name)
    }
    names = sorted(metrics, key=lambda name: int(name.rsplit("_", 1)[1]))
    mean = Curve("critic/explained_variance", "mean value" if names else "", INK)
    colors = (BLUE, VERMILION, GREEN)
    if len(names) <= len(colors):
        critics = [
            Curve(name, f"critic {name.rsplit('_', 1)[1]}", color, 1.2)
            for name, color in zip(names, colors, strict=False)
        ]
    else:  # too many for a label each: one colour, one label
        critics = [Curve(name, "each critic", SKY, 0.9) for name in names]
    return (*critics, mean)


def _series(rows: Sequence[dict[str, Any]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(row["step"], row[metric]) for row in rows if metric in row]
    pairs = sorted(pairs, key=lambda pair: pair[0])
    steps = np.array([step for step, _ in pairs], float)
    return steps, np.array([np.nan if value is None else value for _, value in pairs], float)


def _curves_with_data(panel: Panel, rows: Sequence[dict[str, Any]]) -> list[Curve]:
    return [curve for curve in panel.curves if np.isfinite(_series(rows, curve.metric)[1]).any()]


def _moving_average(values: np.ndarray) -> np.ndarray:
    """A centred moving average over 1/15 of the curve, at least 3 points; skips missing values."""
    window = np.ones(max(3, len(values) // 15) | 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    count = np.convolve(finite.astype(float), window, mode="same")
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def _headline(rows: Sequence[dict[str, Any]], about: str) -> str:
    phrases = [f"{max(row['step'] for row in rows):,} steps", *([about] if about else [])]
    if len(_series(rows, "rollout/reward_mean")[0]) >= SMOOTH_FROM:
        phrases.append("faint: each step, bold: moving average")
    return "   \N{MIDDLE DOT}   ".join(phrases)


def _grid(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes of equal, fixed size, so that margins do not depend on labels."""
    rows = -(-count // columns)
    width = LEFT + columns * PANEL_WIDTH + (columns - 1) * GAP_X + RIGHT
    height = TOP + rows * PANEL_HEIGHT + (rows - 1) * GAP_Y + BOTTOM
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = []
    for index in range(count):
        row, column = divmod(index, columns)
        x = LEFT + column * (PANEL_WIDTH + GAP_X)
        y = height - TOP - PANEL_HEIGHT - row * (PANEL_HEIGHT + GAP_Y)
        box = (x / width, y / height, PANEL_WIDTH / width, PANEL_HEIGHT / height)
        axes.append(figure.add_axes(box))
    return figure, axes


def _draw(ax: Axes, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    ends: dict[str, tuple[float, str]] = {}
    for curve in _curves_with_data(panel, rows):
        steps, values = _series(rows, curve.metric)
        style = {"color": curve.color, "linewidth": curve.width, "zorder": 3}
        if panel.points or len(values) == 1:
            ax.plot(steps, values, "o", color=curve.color, ms=5.5, mec="white", mew=1, zorder=4)
        elif len(values) >= SMOOTH_FROM:
            if curve.width > 1:
                ax.plot(steps, values, color=curve.color, linewidth=0.7, alpha=0.25, zorder=2)
            values = _moving_average(values)
        if curve.interval is not None:
            (at, low), (_, high) = (_series(rows, metric) for metric in curve.interval)
            ax.fill_between(at, low, high, color=curve.color, alpha=0.15, linewidth=0, zorder=1)
        ax.plot(steps, values, **style)
        last = float(values[np.isfinite(values)][-1])
        label = curve.label or (f"{last:.1%}" if panel.percent else _number(last))
        ends[label] = (last, curve.color)
    _set_axes(ax, panel, [row["step"] for row in rows])
    _label_ends(ax, ends)
    ax.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=8)
    ax.set_title(panel.unit, loc="right", fontsize=8, color=GREY, pad=8)


def _set_axes(ax: Axes, panel: Panel, steps: Sequence[int]) -> None:
    low, high = ax.dataLim.y0, ax.dataLim.y1
    if panel.from_zero:
        low = min(0.0, low)
    if panel.lowest is not None:
        low, high = max(low, panel.lowest), max(high, 0.0)
        ax.axhline(0.0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    span = max(high - low, 0.02 * abs(high), 1e-12)  # positive for a constant curve too
    bottom_margin = (0.0 if panel.from_zero and low == 0 else 0.08) * span
    ax.set_ylim(low - bottom_margin, high + 0.12 * span)
    margin = max(max(steps) - min(steps), 1) * 0.02
    ax.set_xlim(min(steps) - margin, max(steps) + margin)
    percent = FuncFormatter(lambda value, _: f"{100 * value:.3g}%")
    number = FuncFormatter(lambda value, _: _number(value))
    ax.yaxis.set_major_formatter(percent if panel.percent else number)
    ax.xaxis.set_major_formatter(number)
    nice = [1, 2, 2.5, 5, 10]
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=nice))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=nice, min_n_ticks=4))
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, labelsize=8, labelcolor=GREY)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color("#bdbdbd")


def _label_ends(ax: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Writes each label next to the end of its curve, and moves labels apart that would overlap."""
    low, high = ax.get_ylim()
    ordered = sorted(ends.items(), key=lambda item: item[1][0])
    ends_y = np.array([np.clip((value - low) / (high - low), 0, 1) for _, (value, _) in ordered])
    offsets = 0.1 * np.arange(len(ordered))
    labels_y = np.maximum.accumulate(ends_y - offsets) + offsets
    labels_y -= np.mean(labels_y - ends_y)
    for y, (label, (_, color)) in zip(labels_y, ordered, strict=True):
        alignment = {"transform": ax.transAxes, "va": "center"}
        ax.text(1.02, y, label, color=color, fontsize=8.5, **alignment)


def _number(value: float) -> str:
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"${mantissa.removesuffix('.0')}\\times10^{{{int(exponent)}}}$"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")
