import math

import numpy as np
import pytest

from experiments.asyppo_study.power import paired_std, pooled, power, seen_difference


def test_power_by_hand():
    # 0.03 √8 / 0.03 = 2.828; minus 1.960 is 0.868; Φ(0.868) = 0.807
    assert power(0.03, 0.03, 8) == pytest.approx(0.807, abs=1e-3)
    assert power(0.0, 0.03, 8) == pytest.approx(0.025, abs=1e-3)
    assert power(0.03, 0.0, 8) == 1.0


def test_power_is_the_share_of_simulated_studies_that_reject():
    rng = np.random.default_rng(0)
    means = rng.normal(0.03, 0.025, (20000, 8)).mean(axis=1)
    rejected = np.mean(np.abs(means) > 1.96 * 0.025 / math.sqrt(8))
    assert power(0.03, 0.025, 8) == pytest.approx(rejected, abs=0.01)


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9])
def test_the_seen_difference_is_the_inverse_of_the_power(wanted):
    difference = seen_difference(0.04, 8, wanted)
    assert power(difference, 0.04, 8) == pytest.approx(wanted)


def test_the_paired_std_takes_the_common_seeds_only():
    first, second = {1: 0.5, 2: 0.6, 3: 0.9}, {1: 0.6, 2: 0.9, 4: 0.1}
    assert paired_std(first, second) == pytest.approx(0.2 / math.sqrt(2))
    with pytest.raises(ValueError, match=r"share the seeds \[1\]; a spread needs at least 2"):
        paired_std({1: 0.5, 2: 0.6}, {1: 0.5})


def test_the_pooled_std_is_the_root_of_the_mean_variance():
    assert pooled([0.03, 0.04]) == pytest.approx(math.sqrt(0.00125))
