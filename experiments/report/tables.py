"""The tables of a report, in Markdown."""

from collections.abc import Callable, Sequence

import numpy as np

from experiments.report.curves import Curve, Results, Setting
from experiments.report.statistics import (
    Estimate,
    mean,
    mean_over_settings,
    paired_differences,
    probability_of_improvement,
)

Score = Callable[[Curve], float]


def report(results: Results) -> str:
    """All tables, with what their columns are."""
    parts = [
        f"# {results.study}",
        f"`{results.metric}` of held-out problems. In brackets: 95% bootstrap interval over seeds. "
        f"Differences are to {results.reference}, paired by seed, over the seeds that both have. "
        "P is the probability that a run of the method ends higher than one of "
        f"{results.reference} (arXiv 2108.13264). Diverged runs have no value: they are counted, "
        "and are in no mean. The final value is that of the last "
        f"{_evaluations(results.final_evaluations)}; the area is the mean over steps.",
    ]
    for setting in results.settings:
        last = steps_after_warmup(results, setting)
        parts += [
            f"## {' / '.join(setting)}",
            _table(results, setting, lambda curve: curve.final(), lambda curve: curve.area()),
            *_without_warmup(results, setting, last),
            *_seconds(results, setting),
        ]
    if len(results.settings) > 1:
        parts += ["## All", overall_table(results, results.settings)]
    actors = dict.fromkeys(actor for _, actor in results.settings)
    for actor in actors if len(actors) > 1 else ():
        settings = [setting for setting in results.settings if setting[1] == actor]
        if len(settings) > 1:
            parts += [f"## All tasks / {actor}", overall_table(results, settings)]
    return "\n\n".join(parts) + "\n"


def _evaluations(count: int) -> str:
    return "evaluation" if count == 1 else f"{count} evaluations, their mean"


def _without_warmup(results: Results, setting: Setting, last: float) -> list[str]:
    """The second table: `last` steps of each method after its warm-up."""
    if last <= 0:
        return ["A method has no step after the critics' warm-up, so there is no table without it."]
    return [
        f"Without the critics' warm-up: {last:g} steps of each method, counted from the first "
        "that updates the actor; between evaluations on a line.",
        _table(
            results,
            setting,
            lambda curve: curve.final(curve.warmup + last),
            lambda curve: curve.area(curve.warmup, curve.warmup + last),
        ),
    ]


def steps_after_warmup(results: Results, setting: Setting) -> float:
    """The most steps that every method has after its warm-up."""
    curves = [
        curve
        for method in results.methods(setting)
        for curve in results.finished(setting, method).values()
    ]
    return min((curve.steps[-1] - curve.warmup for curve in curves), default=0)


def scores(results: Results, setting: Setting, method: str, score: Score) -> dict[int, float]:
    """One number per finished run, by seed."""
    return {seed: score(curve) for seed, curve in results.finished(setting, method).items()}


def finals(results: Results, setting: Setting, method: str) -> dict[int, float]:
    """The final values of a method's finished runs, by seed."""
    return scores(results, setting, method, lambda curve: curve.final())


def _table(results: Results, setting: Setting, final: Score, area: Score) -> str:
    head = ["method", "seeds", "diverged", "final", "difference", "P", "worst seed", "area"]
    head.append("area, difference")
    lines = []
    base = [scores(results, setting, results.reference, score) for score in (final, area)]
    for method in results.methods(setting):
        finals, areas = (scores(results, setting, method, score) for score in (final, area))
        runs = results.curves[setting, method]
        planned = results.planned[setting, method]
        diverged = sum(curve.diverged for curve in runs.values())
        ends = np.array(list(finals.values()))
        improved = probability_of_improvement(ends, np.array(list(base[0].values())))
        is_reference = method == results.reference
        cells = [
            method,
            str(len(runs)) if len(runs) == planned else f"{len(runs)} of {planned}",
            str(diverged),
            text(mean(ends)),
            "" if is_reference else difference(finals, base[0]),
            "" if is_reference else text(improved, digits=2),
            f"{ends.min():.3f}" if len(ends) else "",
            text(mean(np.array(list(areas.values())))),
            "" if is_reference else difference(areas, base[1]),
        ]
        lines.append(cells)
    return markdown(head, lines)


def difference(values: dict[int, float], reference: dict[int, float]) -> str:
    """The mean difference by seed, with the number n of seeds if some are missing."""
    differences = paired_differences(values, reference)
    count = "" if len(differences) == len(values) else f", n = {len(differences)}"
    return f"{text(mean(differences), sign=True)}{count}" if len(differences) else ""


def _seconds(results: Results, setting: Setting) -> list[str]:
    """What a step of each method costs; nothing, if the study does not record times."""
    phases = ("sample", "score", "update")
    lines = []
    for method in results.methods(setting):
        curves = results.finished(setting, method).values()
        names = [f"time/{phase}_s" for phase in phases]
        medians = [[np.median(c.seconds[n]) for c in curves if n in c.seconds] for n in names]
        means = [float(np.mean(x)) for x in medians if x]
        if means:
            cells = [f"{np.mean(x):.2f}" if x else "" for x in medians]  # empty: not in the study
            lines.append([method, *cells, f"{sum(means):.2f}"])
    if not lines:
        return []
    return [
        "Seconds per step of finished runs, medians over steps, then means over seeds.",
        markdown(["method", *phases, "all"], lines),
    ]


def overall_table(results: Results, settings: Sequence[Setting]) -> str:
    """The mean over tasks and actors, of the methods that have a finished run in each."""
    lines = []
    for method in dict.fromkeys(method for _, method in results.curves):
        by_setting = [finals(results, setting, method) for setting in settings]
        if not all(by_setting):
            continue
        paired = [
            paired_differences(values, finals(results, setting, results.reference))
            for setting, values in zip(settings, by_setting, strict=True)
        ]
        final = mean_over_settings([np.array(list(x.values())) for x in by_setting])
        better = "" if method == results.reference else text(mean_over_settings(paired), sign=True)
        lines.append([method, str(sum(map(len, by_setting))), text(final), better])
    return markdown(["method", "runs", "final", "difference"], lines)


def text(estimate: Estimate, *, digits: int = 3, sign: bool = False) -> str:
    """A value with its interval, if it has one; empty: there is no value."""
    if np.isnan(estimate.value):
        return ""
    spec = f"{'+' if sign else ''}.{digits}f"
    if np.isnan(estimate.low):
        return format(estimate.value, spec)
    value, low, high = (format(x, spec) for x in estimate)
    return f"{value} [{low}, {high}]"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
