"""The report of the tuning: the best learning rates, and what a study with n seeds can see."""

import itertools

import numpy as np

from experiments.asyppo_study.power import paired_std, pooled, power, seen_difference
from experiments.asyppo_study.settings import RATES, TUNED_METHODS, tuned_name
from experiments.report.curves import Results, Setting
from experiments.report.tables import finals, markdown

DIFFERENCE, SEEDS = 0.03, 8  # what the study should see, and with how many seeds
TIE = 0.01  # the base config's rates stay unless others are better by this


def tuning_report(results: Results) -> str:
    """The final accuracy at each pair of rates, the choice of each method, and the power."""
    head = ["method", "actor's rate", "critics' rate", *map(" / ".join, results.settings), "mean"]
    lines, choices = [], []
    for method in TUNED_METHODS:
        means = {}
        for rates in RATES:
            name = tuned_name(method, rates)
            if name in results.methods(results.settings[0]) and name not in means:
                ends = [finals(results, setting, name) for setting in results.settings]
                each = [float(np.mean(list(x.values()))) if x else np.nan for x in ends]
                means[name] = float(np.mean(each))
                parts = name.split(", ")[1:]
                cells = [method, *parts, *[""] * (2 - len(parts))]
                lines.append([*cells, *(f"{x:.3f}" for x in (*each, means[name]))])
        choices.append(f"{method}: {chosen(means)}")
    power_lines = [line for setting in results.settings for line in _power(results, setting)]
    return "\n".join([markdown(head, lines), "", *choices, "", *power_lines])


def chosen(means: dict[str, float]) -> str:
    """The best of {name: mean}, but the first, if the best is less than a point better."""
    known = {name: mean for name, mean in means.items() if np.isfinite(mean)}
    if not known:
        return "no run has ended"
    first, best = next(iter(known)), max(known, key=lambda name: known[name])
    return first if known[best] < known[first] + TIE else best


def _power(results: Results, setting: Setting) -> list[str]:
    """What paired differences of the tuned methods, at the base config's rates, say about power."""
    ends = [finals(results, setting, tuned_name(method, RATES[0])) for method in TUNED_METHODS]
    pairs = [
        paired_std(first, second)
        for first, second in itertools.combinations(ends, 2)
        if len(first.keys() & second.keys()) > 1
    ]
    if not pairs:
        return []
    std = pooled(pairs)
    return [
        f"{' / '.join(setting)}: the difference of two methods has a std of {std:.3f} over seeds; "
        f"with {SEEDS} seeds a difference of {DIFFERENCE:.2f} is seen with a probability of "
        f"{power(DIFFERENCE, std, SEEDS):.2f}, and one of {seen_difference(std, SEEDS):.3f} "
        "with 0.80"
    ]
