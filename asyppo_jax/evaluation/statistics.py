"""Statistics of k answers to each of N problems, in pure NumPy.

`right` [N, k] has the scores, in [0, 1], of the k answers to each problem.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Z95 = 1.959963984540054  # the 97.5% quantile of the normal distribution


class Interval(NamedTuple):
    """The two ends of a 95% interval."""

    low: float
    high: float


def average_at_k(right: Float[np.ndarray, "N k"]) -> float:
    """avg@k: the mean score over problems and their k answers; an estimate of pass@1."""
    return float(right.mean())


def average_interval(right: Float[np.ndarray, "N k"]) -> Interval:
    """A 95% confidence interval of avg@k, for problems drawn from a population of problems.

    The answers to one problem are correlated, so the standard error is that of the N problem means,
    s / √N (clustered standard errors, arXiv 2411.00640). The interval is Wilson's, with the number
    n = p(1 − p) / (s² / N) of independent answers that would have the same error. It stays in
    [0, 1] and, unlike p ± 1.96 s / √N, has a positive width even if all problems have the same
    score (then n = N).
    """
    means = right.mean(axis=1)
    count, p = len(means), float(means.mean())
    squared_error = float(means.var(ddof=1)) / count if count > 1 else 0.0
    n = p * (1 - p) / squared_error if squared_error else count
    center = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return Interval(max(0.0, float(center - half)), min(1.0, float(center + half)))


def pass_at_k(num_samples: int, num_right: Int[np.ndarray, " N"], k: int) -> float:
    """Unbiased pass@k from n samples, c right: the mean of 1 − C(n−c, k) / C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), as a product: C(n−c, k) / C(n, k) = Π_{i=n−c+1..n} 1 − k/i.

    Raises:
        ValueError: unless 1 <= k <= n.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"k is {k}, but there are {num_samples} samples; choose k from 1 to {num_samples}"
        )
    factors = 1 - k / np.arange(1, num_samples + 1)
    factors = np.maximum(factors, 0.0)  # i < k: every draw of k has a right answer
    missed = [np.prod(factors[num_samples - c :]) for c in num_right]
    return float(1 - np.mean(missed))


def powers_of_two(n: int) -> list[int]:
    """The values of k for which pass@k is reported: 1, 2, 4, … up to n, and n itself."""
    return sorted({*(1 << i for i in range(n.bit_length())), n})


def length_summary(lengths: Int[np.ndarray, " B"]) -> dict[str, float]:
    """Mean, median, 90th percentile and maximum of the lengths, in tokens."""
    median, p90 = np.percentile(lengths, [50, 90])
    return {
        "mean": float(lengths.mean()),
        "median": float(median),
        "p90": float(p90),
        "max": float(lengths.max()),
    }
