"""Drawing a token: the distribution, its truncations, and what log-prob is told."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyppo_jax.sampling.draw import draw, inverse_cdf, truncate
from tests.tiny import make_options

OPTIONS = make_options(1, 8)
P = jnp.array([[0.5, 0.3, 0.15, 0.05]])


def _kept(weights, **changes):
    return np.asarray(truncate(weights / weights.max(), replace(OPTIONS, **changes)) > 0)


def test_draws_follow_the_distribution():
    """Frequencies of 20,000 draws from a vocabulary of many blocks, to three deviations."""
    vocabulary, draws = 1200, 20_000
    logits = jnp.zeros(vocabulary).at[jnp.array([0, 600, 1199])].set(jnp.array([6.0, 7.0, 8.0]))
    p = jax.nn.softmax(logits)
    uniform = jax.random.uniform(jax.random.key(0), (draws,))
    rows = jnp.broadcast_to(p, (draws, vocabulary))
    tokens, total = jax.jit(inverse_cdf)(rows, uniform)
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    counts = np.bincount(np.asarray(tokens), minlength=vocabulary)
    for token in (0, 600, 1199):
        deviation = np.sqrt(draws * p[token] * (1 - p[token]))
        assert abs(counts[token] - draws * p[token]) < 3 * deviation
    rest = np.delete(counts, [0, 600, 1199]).sum()
    expected = draws * (1 - p[jnp.array([0, 600, 1199])].sum())
    assert abs(rest - expected) < 3 * np.sqrt(expected)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-23])
@pytest.mark.parametrize("vocabulary", [1100, 1024, 4, 1])
def test_a_token_without_probability_is_never_drawn(uniform, vocabulary):
    places = jnp.array([0, vocabulary // 2])
    weights = jnp.zeros((1, vocabulary)).at[0, places].set(1.0)
    token, _ = inverse_cdf(weights, jnp.array([uniform]))
    assert int(token[0]) in places.tolist()


def test_top_k_keeps_the_k_likeliest():
    weights = jnp.exp(jnp.array([[1.0, 4.0, 3.0, 2.0]]))
    for k, kept in ((1, [0, 1, 0, 0]), (2, [0, 1, 1, 0]), (3, [0, 1, 1, 1]), (4, [1, 1, 1, 1])):
        np.testing.assert_array_equal(_kept(weights, top_k=k), [kept])


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.79, 2), (0.81, 3), (0.96, 4)):
        np.testing.assert_array_equal(_kept(P, top_p=top_p), [np.arange(4) < kept])


def test_min_p_is_relative_to_the_likeliest():
    for min_p, kept in ((0.05, 4), (0.2, 3), (0.59, 2), (0.61, 1), (1.0, 1)):
        np.testing.assert_array_equal(_kept(P, min_p=min_p), [np.arange(4) < kept])


def test_the_nucleus_is_that_of_what_top_k_left():
    """Of (0.5, 0.3) alone the first has 0.625 of the mass, of all four only 0.5."""
    np.testing.assert_array_equal(_kept(P, top_p=0.6), [[1, 1, 0, 0]])
    np.testing.assert_array_equal(_kept(P, top_k=2, top_p=0.6), [[1, 0, 0, 0]])


@settings(max_examples=25)  # each is a program of its own
@given(seed=st.integers(0, 1000), top_k=st.integers(1, 40), top_p=st.floats(0.05, 0.95))
def test_thresholds_are_those_of_sorting(seed, top_k, top_p):
    logits = np.random.default_rng(seed).normal(size=(1, 37)).astype(np.float32) * 3
    weights = np.exp(logits - logits.max())
    ordered = np.sort(weights[0])[::-1]
    by_count = weights >= ordered[min(top_k, 37) - 1]
    np.testing.assert_array_equal(_kept(jnp.asarray(weights), top_k=top_k), by_count)
    cumulative = np.cumsum(ordered.astype(np.float64)) / ordered.sum(dtype=np.float64)
    if np.abs(cumulative - top_p).min() > 1e-5:
        by_mass = weights >= ordered[np.argmax(cumulative >= top_p)]
        np.testing.assert_array_equal(_kept(jnp.asarray(weights), top_p=top_p), by_mass)


def test_tokens_that_tie_with_a_kept_one_are_kept():
    weights = jnp.array([[1.0, 0.5, 0.5, 0.1]])
    np.testing.assert_array_equal(_kept(weights, top_k=2), [[1, 1, 1, 0]])
    np.testing.assert_array_equal(_kept(weights, top_p=0.6), [[1, 1, 1, 0]])


def test_truncation_does_not_leak_into_the_log_prob():
    options = replace(OPTIONS, top_k=2)
    token, log_prob, sampled, _ = draw(jnp.log(P), jnp.array([0.9]), options)
    assert int(token[0]) == 1
    np.testing.assert_allclose(log_prob, np.log(0.3), rtol=1e-6)
    np.testing.assert_allclose(sampled, np.log(0.3 / 0.8), rtol=1e-6)


def test_temperature_shows_in_the_sampled_log_prob_alone():
    options = replace(OPTIONS, temperature=0.5)
    token, log_prob, sampled, _ = draw(jnp.log(P), jnp.array([0.0]), options)
    squares = np.asarray(P[0]) ** 2
    np.testing.assert_allclose(log_prob, np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(sampled, np.log(squares[0] / squares.sum()), rtol=1e-6)
    assert int(token[0]) == 0


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.5, "top_k": 2}, {"temperature": 0.0}], ids=str
)
def test_the_entropy_is_that_of_the_plain_policy(changes):
    options = replace(OPTIONS, entropy=True, **changes)
    p = np.array([[0.5, 0.3, 0.15, 0.05], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(7 + np.log(p), jnp.float32)  # of forbidden tokens: -inf
    expected = [-sum(x * np.log(x) for x in row if x > 0) for row in p]
    entropy = draw(logits, jnp.array([0.1, 0.6, 0.9]), options).entropy
    assert entropy is not None
    np.testing.assert_allclose(entropy, expected, atol=1e-6)
    assert draw(logits, jnp.array([0.1, 0.6, 0.9]), replace(options, entropy=False)).entropy is None


def test_greedy_takes_the_first_of_the_likeliest():
    options = replace(OPTIONS, temperature=0.0)
    logits = jnp.array([[1.0, 3.0, 3.0, 0.0], [0.0, 0.0, 0.0, 9.0]])
    token, _, sampled, _ = draw(logits, jnp.array([0.7, 0.7]), options)
    np.testing.assert_array_equal(token, [1, 3])
    np.testing.assert_array_equal(sampled, 0.0)
