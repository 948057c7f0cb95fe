"""Hand-worked numbers of avg@k, its interval and pass@k, and the identities that they obey."""

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


def test_the_average_counts_problems_alike():
    right = np.array([[1.0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
    assert average_at_k(right) == pytest.approx((0.5 + 1 + 0.25) / 3)


def test_pass_at_k_by_hand():
    # n = 4, c = 1: a draw of two misses it in C(3,2)/C(4,2) = 1/2 of the cases.
    assert pass_at_k(4, np.array([1]), 2) == pytest.approx(0.5)
    assert pass_at_k(4, np.array([3]), 2) == 1.0
    assert pass_at_k(4, np.array([0]), 4) == 0.0
    assert pass_at_k(4, np.array([1, 3, 0]), 2) == pytest.approx(0.5)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(k):
    for right in range(6):
        answers = [1] * right + [0] * (5 - right)
        draws = [any(draw) for draw in combinations(answers, k)]
        assert pass_at_k(5, np.array([right]), k) == pytest.approx(np.mean(draws))


def test_pass_at_one_is_the_average():
    right = np.random.default_rng(0).integers(0, 2, (20, 4)).astype(float)
    assert pass_at_k(4, right.sum(axis=1).astype(int), 1) == pytest.approx(average_at_k(right))


def test_pass_at_more_than_the_samples_is_refused():
    with pytest.raises(ValueError, match="k is 5, but there are 4 samples"):
        pass_at_k(4, np.array([1]), 5)


def test_the_interval_of_single_answers_is_wilsons():
    right = np.array([[1.0]] * 30 + [[0.0]] * 70)
    n, p = 99.0, 0.3  # s²/N = p(1-p)/(N-1) for single answers
    center = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / (1 + Z95**2 / n)
    assert average_interval(right) == pytest.approx((center - half, center + half))
    assert center - half == pytest.approx(0.2185, abs=1e-3)


def test_copies_of_an_answer_do_not_narrow_the_interval():
    one = np.array([[1.0]] * 12 + [[0.0]] * 18)
    assert average_interval(np.repeat(one, 8, axis=1)) == pytest.approx(average_interval(one))


def test_problems_that_come_out_alike_leave_a_width():
    low, high = average_interval(np.ones((30, 4)))
    assert (low, high) == pytest.approx((30 / (30 + Z95**2), 1.0))
    low, high = average_interval(np.zeros((1, 4)))
    assert low == 0.0 and 0.7 < high < 1.0


def test_the_interval_holds_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    for a, b in ((1.0, 1.0), (0.5, 3.0)):
        held = []
        for _ in range(2000):
            chances = rng.beta(a, b, 40)
            right = (rng.random((40, 4)) < chances[:, None]).astype(float)
            low, high = average_interval(right)
            held.append(low <= a / (a + b) <= high)
        assert 0.93 < np.mean(held) < 0.97


def test_the_ks_of_a_table():
    assert [powers_of_two(n) for n in (1, 4, 6)] == [[1], [1, 2, 4], [1, 2, 4, 6]]


def test_lengths():
    found = length_summary(np.arange(1, 12))
    assert found == {"mean": 6.0, "median": 6.0, "p90": 10.0, "max": 11.0}
