"""The paper's claims beside what the main runs show: the hypotheses of PREREGISTRATION.md."""

from dataclasses import dataclass

import numpy as np

from experiments.report.curves import Results
from experiments.report.statistics import Estimate, mean_over_settings, paired_differences
from experiments.report.tables import finals, markdown, text


@dataclass(frozen=True)
class Claim:
    """A hypothesis: `first` ends higher than `second`."""

    name: str
    first: str
    second: str
    paper: str  # what the paper says
    effect: float | None = None  # the smallest figure in the paper, as a difference of accuracies


CLAIMS = (
    Claim("H1", "asyppo", "symmetric_ppo", "+6 points (4B), +3 (8B, 14B)", 0.03),
    Claim("H2", "asyppo", "grpo", "+3 points (14B)", 0.03),
    Claim("H3", "no_masks", "one_mini_critic", "one mini-critic fails, two help"),
    Claim("H4", "no_masks", "same_data", "same data gives almost no gain"),
    Claim("H5", "no_masks", "prompt_division", "rejected by the paper"),
    Claim("H6", "asyppo", "no_advantage_mask", "+6 points at reuse 4", 0.06),
    Claim("H7", "asyppo", "no_entropy_mask", "+7 points", 0.07),
    Claim("H8", "asyppo", "random_masks", "σ matters"),
    Claim("H9", "asyppo", "entropy_masks", "σ is better"),
    Claim("H10", "asyppo", "masks_5", "20% is best"),
    Claim("H10", "asyppo", "masks_40", "20% is best"),
    Claim("H11", "asyppo", "min_value", "the mean is better"),
    Claim("H13", "asyppo_anchored", "asyppo", "not in the paper"),
)
STABILITY = ("asyppo", "symmetric_ppo")  # H12


def claims_report(results: Results) -> str:
    """The table of claims with an interval and a verdict, then the stability over seeds."""
    head = ["", "first", "second", "the paper", "difference", "runs", "verdict"]
    return "\n\n".join(
        [
            "Differences of final accuracy, paired by seed, mean over tasks and actors, with 95% "
            "intervals; no correction for the number of claims.",
            markdown(head, [_line(results, claim) for claim in CLAIMS]),
            "H12, stability: the standard deviation of the final accuracy over seeds, and the "
            "worst seed.",
            _stability(results),
        ]
    )


def verdict(difference: Estimate, effect: float | None, diverged: int) -> str:
    """The rule of PREREGISTRATION.md for one claim; `diverged` counts runs of the first method."""
    if np.isnan(difference.low):
        return "not run" if np.isnan(difference.value) else "too few seeds"
    if difference.low > 0:
        return "not confirmed, because a run diverged" if diverged else "confirmed"
    if difference.high < 0:
        return "reversed"
    excluded = effect is not None and difference.high < effect
    return "not seen: no effect of this size" if excluded else "not seen"


def _line(results: Results, claim: Claim) -> list[str]:
    names = (claim.first, claim.second)
    common = [s for s in results.settings if set(names) <= set(results.methods(s))]
    pairs = [
        paired_differences(*(finals(results, setting, name) for name in names))
        for setting in common
    ]
    difference = mean_over_settings(pairs)
    diverged = sum(
        curve.diverged for s in common for curve in results.curves[s, claim.first].values()
    )
    return [
        claim.name,
        *names,
        claim.paper,
        text(difference, sign=True),
        str(sum(map(len, pairs))),
        verdict(difference, claim.effect, diverged),
    ]


def _stability(results: Results) -> str:
    lines = []
    for method in STABILITY:
        cells = [method]
        for setting in results.settings:
            ends = np.array(list(finals(results, setting, method).values()))
            known = len(ends) > 1
            cells.append(f"{ends.std(ddof=1):.4f}, {ends.min():.3f}" if known else "")
        lines.append(cells)
    return markdown(["method", *map(" / ".join, results.settings)], lines)
