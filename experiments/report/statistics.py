"""Statistics of results over seeds, in pure NumPy.

Intervals are percentile bootstraps over seeds with a fixed seed of their own, so equal results give
equal intervals. With few seeds they are too narrow: the interval of three reaches
from the lowest to the highest, which contains the median of a distribution in 75% of cases.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A number and the ends of its 95% interval, which are NaN for a single seed."""

    value: float
    low: float
    high: float


def mean(values: Float[np.ndarray, " n"]) -> Estimate:
    """The mean over n seeds with its 95% interval; NaN without seeds."""
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    resampled = values[_draws(len(values))].mean(axis=1)
    return _estimate(float(values.mean()), resampled, len(values))


def mean_over_settings(values: list[Float[np.ndarray, " n"]]) -> Estimate:
    """The mean over settings of their means over seeds; each setting is resampled by itself.

    The stratified bootstrap of Agarwal et al. (arXiv 2108.13264, section 4).
    """
    if not values or min(map(len, values)) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    resampled = [x[_draws(len(x), stratum=i)].mean(axis=1) for i, x in enumerate(values)]
    value = float(np.mean([x.mean() for x in values]))
    return _estimate(value, np.mean(resampled, axis=0), min(map(len, values)))


def probability_of_improvement(
    values: Float[np.ndarray, " n"], reference: Float[np.ndarray, " m"]
) -> Estimate:
    """P(X > Y) for a run X of a method and a run Y of the reference, with its 95% interval.

        1 / (n m) Σ_i Σ_j S(x_i, y_j),   S = 1 if x > y, 1/2 if x = y, else 0

    (arXiv 2108.13264, equation 2). Both sides are resampled.
    """
    if min(len(values), len(reference)) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    wins = (np.sign(values[:, None] - reference[None]) + 1) / 2
    rows, columns = _draws(len(values)), _draws(len(reference), stratum=1)
    # The mean of wins[rows][:, columns] of each resample, by how often each seed was drawn.
    counts = [_counts(draws, n) for draws, n in ((rows, len(values)), (columns, len(reference)))]
    resampled = np.einsum("ri,ij,rj->r", counts[0], wins, counts[1]) / wins.size
    return _estimate(float(wins.mean()), resampled, min(wins.shape))


def paired_differences(
    values: dict[int, float], reference: dict[int, float]
) -> Float[np.ndarray, " n"]:
    """values − reference of each seed that both have, in the order of the seeds."""
    return np.array([values[s] - reference[s] for s in sorted(values.keys() & reference.keys())])


def area_under_curve(
    steps: Float[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    first: float | None = None,
    last: float | None = None,
) -> float:
    """The mean of a curve between two steps: its integral, by trapezoids, over their distance.

    Between its points the curve is a line. By default from its first point to its last.
    """
    first = float(steps[0]) if first is None else first
    last = float(steps[-1]) if last is None else last
    if last <= first:
        return float(np.interp(last, steps, values))
    inside = steps[(steps > first) & (steps < last)]
    x = np.concatenate([[first], inside, [last]])
    y = np.interp(x, steps, values)
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) / (last - first))


def value_at(steps: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], step: float) -> float:
    """A curve's value at a step, on the line between the points around it."""
    return float(np.interp(step, steps, values))


def _draws(count: int, stratum: int = 0) -> np.ndarray:
    rng = np.random.default_rng([count, stratum])
    return rng.integers(0, count, (RESAMPLES, count))


def _counts(draws: np.ndarray, count: int) -> np.ndarray:
    """How often each of `count` seeds is in each resample, [RESAMPLES, count]."""
    return (draws[:, :, None] == np.arange(count)).sum(axis=1)


def _estimate(value: float, resampled: np.ndarray, count: int) -> Estimate:
    if count < 2:
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
