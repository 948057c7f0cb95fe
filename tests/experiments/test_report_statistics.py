"""The statistics of a report, against numbers worked out by hand."""

import itertools

import numpy as np
import pytest

from experiments.report.statistics import (
    area_under_curve,
    mean,
    mean_over_settings,
    paired_differences,
    probability_of_improvement,
    value_at,
)


def test_the_interval_of_a_mean_is_that_of_all_resamples():
    values = np.array([0.1, 0.2, 0.6])
    # All 27 resamples have equal probability; 1/27 each for the lowest and the highest.
    exact = [np.mean(x) for x in itertools.product(values, repeat=3)]
    estimate = mean(values)
    assert estimate.value == pytest.approx(0.3)
    assert (estimate.low, estimate.high) == pytest.approx((min(exact), max(exact)))
    values = np.linspace(0, 1, 6)
    exact = [np.mean(x) for x in itertools.product(values, repeat=6)]
    low, high = np.percentile(exact, [2.5, 97.5])
    assert (mean(values).low, mean(values).high) == pytest.approx((low, high), abs=0.034)
    assert mean(values) == mean(values)  # the bootstrap has a seed of its own


def test_one_seed_has_no_interval_and_none_no_mean():
    assert mean(np.array([0.4])).value == 0.4 and np.isnan(mean(np.array([0.4])).low)
    assert np.isnan(mean(np.array([])).value)
    assert np.isnan(probability_of_improvement(np.array([]), np.array([1.0])).value)
    assert np.isnan(mean_over_settings([np.array([1.0]), np.array([])]).value)


def test_the_probability_of_improvement_counts_pairs_and_ties_as_half():
    better = probability_of_improvement(np.array([1.0, 2.0]), np.array([0.0, 1.0, 3.0]))
    # 1 > 0, 1 = 1, 1 < 3; 2 > 0, 2 > 1, 2 < 3: (1 + 1/2 + 1 + 1) / 6
    assert better.value == pytest.approx(3.5 / 6)
    sure = probability_of_improvement(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert sure == (1.0, 1.0, 1.0)


def test_resamples_of_a_probability_are_those_of_both_sides():
    values, reference = np.array([1.0, 4.0, 2.5]), np.array([2.0, 3.0])
    exact = [
        np.mean([(np.sign(x - y) + 1) / 2 for x in a for y in b])
        for a in itertools.product(values, repeat=3)
        for b in itertools.product(reference, repeat=2)
    ]
    low, high = np.percentile(exact, [2.5, 97.5])
    estimate = probability_of_improvement(values, reference)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.01)


def test_differences_are_of_the_same_seed_and_leave_out_missing_ones():
    differences = paired_differences({1: 0.5, 2: 0.9, 7: 1.0}, {2: 0.4, 1: 0.3, 3: 0.0})
    np.testing.assert_allclose(differences, [0.2, 0.5])


def test_each_setting_counts_the_same_and_is_resampled_by_itself():
    estimate = mean_over_settings([np.array([0.0, 0.0, 0.0, 0.0]), np.array([1.0, 0.6])])
    assert estimate.value == pytest.approx((0.0 + 0.8) / 2)
    assert (estimate.low, estimate.high) == pytest.approx((0.3, 0.5))


def test_the_area_is_the_mean_height_of_the_curve():
    steps, values = np.array([0.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5])
    assert area_under_curve(steps, values) == pytest.approx((1.0 + 0.75) / 3)
    assert area_under_curve(steps, values, 1.0) == pytest.approx((0.75 + 0.75) / 2)
    assert area_under_curve(steps, values, 1.0, 1.5) == pytest.approx(0.625)
    assert area_under_curve(steps, values, 2.0, 2.0) == 1.0
    assert value_at(steps, values, 2.5) == pytest.approx(0.75)
