"""avg@k, its confidence interval and pass@k: numbers worked by hand, and identities."""

from itertools import combinations

import numpy as np
import pytest

from asyppo_jax.evaluation.statistics import (
    Z95,
    average_at_k,
    average_interval,
    length_summary,
    pass_at_k,
    powers_of_two,
)


def test_the_average_weights_all_problems_equally():
    right = np.array([[1.0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
    assert average_at_k(right) == pytest.approx((0.5 + 1 + 0.25) / 3)


def test_pass_at_k_gives_the_numbers_worked_by_hand():
    # n = 4, c = 1: a draw of two misses it in C(3,2)/C(4,2) = 1/2 of the cases.
    assert pass_at_k(4, np.array([1]), 2) == pytest.approx(0.5)
    assert pass_at_k(4, np.array([3]), 2) == 1.0
    assert pass_at_k(4, np.array([0]), 4) == 0.0
    assert pass_at_k(4, np.array([1, 3, 0]), 2) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_fraction_of_draws_with_a_right_answer(k):
    for right in range(6):
        answers = [1] * right + [0] * (5 - right)
        draws = [any(draw) for draw in combinations(answers, k)]
        assert pass_at_k(5, np.array([right]), k) == pytest.approx(np.mean(draws))


def test_pass_at_one_is_the_average():
    right = np.random.default_rng(0).integers(0, 2, (20, 4)).astype(float)
    assert pass_at_k(4, right.sum(axis=1).astype(int), 1) == pytest.approx(average_at_k(right))


def test_k_above_the_number_of_samples_is_refused():
    with pytest.raises(ValueError, match="k is 5, but there are 4 samples"):
        pass_at_k(4, np.array([1]), 5)


def test_the_interval_of_one_answer_per_problem_is_wilsons():
    right = np.array([[1.0]] * 30 + [[0.0]] * 70)
    n, p = 99.0, 0.3  # s²/N = p(1-p)/(N-1) with one answer per problem
    center = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    assert average_interval(right) == pytest.approx((center - half, center + half))
    assert center - half == pytest.approx(0.2185, abs=1e-3)


def test_repeated_answers_do_not_narrow_the_interval():
    right = np.array([[1.0]] * 12 + [[0.0]] * 18)
    assert average_interval(np.repeat(right, 8, axis=1)) == pytest.approx(average_interval(right))


def test_the_interval_has_a_width_if_all_problems_have_the_same_score():
    low, high = average_interval(np.ones((30, 4)))
    assert (low, high) == pytest.approx((30 / (30 + Z95**2), 1.0))
    low, high = average_interval(np.zeros((1, 4)))
    assert low == 0.0 and 0.7 < high < 1.0


def test_the_interval_contains_the_truth_in_95_percent_of_cases():
    rng = np.random.default_rng(0)
    for a, b in ((1.0, 1.0), (0.5, 3.0)):
        covered = []
        for _ in range(2000):
            chances = rng.beta(a, b, 40)
            right = (rng.random((40, 4)) < chances[:, None]).astype(float)
            low, high = average_interval(right)
            covered.append(low <= a / (a + b) <= high)
        assert 0.93 < np.mean(covered) < 0.97


def test_powers_of_two_include_n_itself():
    assert [powers_of_two(n) for n in (1, 4, 6)] == [[1], [1, 2, 4], [1, 2, 4, 6]]


def test_the_length_summary_worked_by_hand():
    summary = length_summary(np.arange(1, 12))
    assert summary == {"mean": 6.0, "median": 6.0, "p90": 10.0, "max": 11.0}
