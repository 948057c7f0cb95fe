"""Masked reductions: masked entries are ignored, and sums over microbatches give the total."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops import masked

MASK = jnp.array([[True, True, False], [True, False, False]])
X = jnp.array([[1.0, 2.0, 100.0], [6.0, 100.0, 100.0]])


def random_batch(seed=0, shape=(6, 9), offset=0.0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, shape[1] + 1, shape[0])
    mask = jnp.asarray(np.arange(shape[1]) < lengths[:, None])
    return jnp.asarray(offset + rng.standard_normal(shape), jnp.float32), mask


def test_reductions_of_a_hand_computed_example():
    # Real entries: 1, 2, 6. Sum 9, mean 3, population variance (4 + 1 + 9) / 3.
    assert masked.masked_sum(X, MASK) == 9
    assert masked.masked_mean(X, MASK) == 3
    assert masked.masked_variance(X, MASK) == pytest.approx(14 / 3)
    assert [float(number) for number in masked.token_sum(X, MASK)] == [9, 3]


def test_the_sequence_mean_sum_of_a_hand_computed_example():
    # Row means 3/2 and 6: the sum is 7.5 over 2 sequences, while the mean over tokens is 3.
    assert [float(number) for number in masked.sequence_mean_sum(X, MASK)] == [7.5, 2]


def test_a_sequence_without_real_tokens_is_not_counted():
    mask = MASK.at[1].set(False)
    assert [float(number) for number in masked.sequence_mean_sum(X, mask)] == [1.5, 1]


def test_every_reduction_equals_a_slow_loop():
    x, mask = random_batch()
    entries = [float(x[b, t]) for b in range(6) for t in range(9) if mask[b, t]]
    rows = [[float(x[b, t]) for t in range(9) if mask[b, t]] for b in range(6)]
    total = sum(sum(row) / len(row) for row in rows if row)
    assert masked.masked_sum(x, mask) == pytest.approx(sum(entries), rel=1e-6, abs=1e-6)
    assert masked.masked_mean(x, mask) == pytest.approx(np.mean(entries), rel=1e-6, abs=1e-6)
    assert masked.masked_variance(x, mask) == pytest.approx(np.var(entries), rel=1e-6)
    numerator, denominator = masked.sequence_mean_sum(x, mask)
    assert numerator == pytest.approx(total, rel=1e-6, abs=1e-6)
    assert denominator == sum(bool(row) for row in rows)


@pytest.mark.parametrize("padding", [jnp.nan, jnp.inf, 1e30])
def test_masked_out_entries_are_ignored(padding):
    dirty = jnp.where(MASK, X, padding)
    for function in (
        masked.masked_sum,
        masked.masked_mean,
        masked.masked_variance,
        masked.token_sum,
        masked.sequence_mean_sum,
        lambda x, mask: masked.masked_quantile(x, mask, 0.5),
        lambda x, mask: masked.explained_variance(x, jnp.square(x), mask),
    ):
        np.testing.assert_array_equal(function(dirty, MASK), function(X, MASK))


@pytest.mark.parametrize("function", [masked.masked_sum, masked.masked_mean])
def test_no_gradient_flows_through_a_false_mask(function):
    gradient = jax.grad(function)(jnp.where(MASK, X, jnp.nan), MASK)
    weight = 1.0 if function is masked.masked_sum else 1 / 3
    np.testing.assert_allclose(gradient, jnp.where(MASK, weight, 0.0), rtol=1e-6)


def test_an_empty_mask_gives_zero_and_not_nan():
    empty_mask = jnp.zeros(MASK.shape, bool)
    assert masked.masked_mean(X, empty_mask) == 0
    assert masked.masked_variance(X, empty_mask) == 0
    assert masked.masked_quantile(X, empty_mask, 0.5) == 0
    assert masked.explained_variance(X, X, empty_mask) == 0
    assert [float(number) for number in masked.sequence_mean_sum(X, empty_mask)] == [0, 0]
    gradient = jax.grad(lambda x: masked.sequence_mean_sum(x, empty_mask)[0])(X)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("function", [masked.sequence_mean_sum, masked.token_sum])
def test_results_of_microbatches_add_up_to_that_of_the_batch(function):
    x, mask = random_batch()
    full = function(x, mask)
    for cuts in ([1, 2, 5], [3], []):
        microbatches = zip(jnp.split(x, cuts), jnp.split(mask, cuts), strict=True)
        results = [function(*microbatch) for microbatch in microbatches]
        sums = [sum(float(result[i]) for result in results) for i in (0, 1)]
        np.testing.assert_allclose(sums, full, rtol=1e-6)


def test_the_mean_of_microbatch_means_is_not_the_mean():
    # This is why sums and counts are returned separately: the rows have 2 and 1 real tokens.
    means = [float(masked.masked_mean(X[b], MASK[b])) for b in (0, 1)]
    assert np.mean(means) == 3.75
    assert masked.masked_mean(X, MASK) == 3


def test_the_variance_is_accurate_far_from_zero():
    x, mask = random_batch(offset=1000.0)
    exact = np.var(np.asarray(x, np.float64)[np.asarray(mask)])
    assert masked.masked_variance(x, mask) == pytest.approx(exact, rel=1e-4)


def test_explained_variance_is_one_for_perfect_values_and_zero_for_constant_ones():
    returns, mask = random_batch()
    assert masked.explained_variance(returns, returns, mask) == 1
    assert masked.explained_variance(returns + 5, returns, mask) == pytest.approx(1, abs=1e-6)
    constant = jnp.full(returns.shape, 0.3)
    assert masked.explained_variance(constant, returns, mask) == pytest.approx(0, abs=1e-6)


def test_explained_variance_of_a_hand_computed_example():
    # Returns 0, 2, 4: variance 8/3. Errors 0, -1, 1: variance 2/3. 1 - 1/4 = 0.75.
    returns = jnp.array([[0.0, 2.0, 4.0]])
    values = jnp.array([[0.0, 3.0, 3.0]])
    mask = jnp.ones((1, 3), bool)
    assert masked.explained_variance(values, returns, mask) == pytest.approx(0.75)
    # Values of the wrong sign give a negative number: errors 0, 4, 8, variance 32/3.
    assert masked.explained_variance(-returns, returns, mask) == pytest.approx(-3)


@pytest.mark.parametrize("reward", [0.0, 0.7, 1.0])
def test_explained_variance_is_zero_if_all_rewards_are_equal(reward):
    # lambda-returns A + V of equal rewards differ by rounding only, which must not count.
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.standard_normal((64, 50)), jnp.float32)
    returns = (reward - values) + values
    mask = jnp.ones(values.shape, bool)
    assert masked.explained_variance(values, returns, mask) == 0
    assert masked.explained_variance(values, jnp.full(values.shape, reward), mask) == 0


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_quantile_is_the_nearest_real_entry(q):
    x, mask = random_batch()
    expected = np.quantile(np.asarray(x)[np.asarray(mask)], q, method="nearest")
    assert masked.masked_quantile(x, mask, q) == expected


def test_compiled_and_batched_variants_agree(assert_variants_agree):
    x, mask = (jnp.stack(arrays) for arrays in zip(*map(random_batch, range(3)), strict=True))
    for function in (
        masked.masked_sum,
        masked.masked_mean,
        masked.masked_variance,
        masked.token_sum,
        masked.sequence_mean_sum,
        lambda x, mask: masked.masked_quantile(x, mask, 0.3),
    ):
        assert_variants_agree(function, x, mask)
    assert_variants_agree(masked.explained_variance, x, x[::-1], mask, atol=1e-5)


def test_the_parts_of_a_variance_are_those_of_a_slow_loop_and_add_up():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 5)).astype(np.float32)
    mask = np.arange(5)[None] < np.array([[5], [1], [3], [4], [2], [5]])
    parts = masked.variance_parts(jnp.asarray(x), jnp.asarray(mask), 2)
    tokens = [(row // 2, row, x[row, t]) for row in range(6) for t in range(5) if mask[row, t]]
    prompts, answers, values = map(np.array, zip(*tokens, strict=True))
    of_prompt = np.array([values[prompts == p].mean() for p in prompts])
    of_answer = np.array([values[answers == a].mean() for a in answers])
    np.testing.assert_allclose(
        parts,
        [
            ((of_prompt - values.mean()) ** 2).mean(),
            ((of_answer - of_prompt) ** 2).mean(),
            ((values - of_answer) ** 2).mean(),
        ],
        rtol=1e-5,
    )
    np.testing.assert_allclose(parts.total, values.var(), rtol=1e-5)
