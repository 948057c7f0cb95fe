"""How likely a study with n paired seeds is to see a difference: the normal approximation."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, mean, stdev

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)  # a two-sided test at 5%


def power(difference: float, std: float, num_seeds: int) -> float:
    """P(the test rejects "no difference") = Φ(δ √n / s − z), with z = 1.96 (two-sided, 5%).

    Args:
        difference: δ, the true mean difference.
        std: s, the standard deviation over seeds of the difference of two runs with one seed.
        num_seeds: n.

    With few seeds the t distribution has wider tails, so this is a little too optimistic. The
    probability of rejecting in the wrong direction is left out, because it is tiny.
    """
    if std == 0:
        return 1.0
    return _NORMAL.cdf(difference * math.sqrt(num_seeds) / std - _Z)


def seen_difference(std: float, num_seeds: int, wanted_power: float = 0.8) -> float:
    """The difference that is seen with `wanted_power`: δ = (z + Φ⁻¹(power)) s / √n."""
    return (_Z + _NORMAL.inv_cdf(wanted_power)) * std / math.sqrt(num_seeds)


def paired_std(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """The sample standard deviation of the differences of two methods, {seed: value} each.

    Raises:
        ValueError: they have fewer than two seeds in common.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        raise ValueError(f"the methods share the seeds {seeds}; a spread needs at least 2")
    return stdev(second[seed] - first[seed] for seed in seeds)


def pooled(stds: Sequence[float]) -> float:
    """√(mean of s²): one standard deviation from several of equally many seeds."""
    return math.sqrt(mean(std**2 for std in stds))
