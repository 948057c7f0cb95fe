"""Losses of critics against slow numpy loops, and the properties that define them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops import value_losses
from asyppo_jax.ops.value_heads import ValueHead

HEAD = ValueHead("bins", -0.1, 1.1, bins=101)
RETURNS = jnp.array([0.0, 0.37, 1.0])


def test_clipped_squared_error_takes_the_larger_error():
    values, old = jnp.array([0.9, 0.1, 0.5]), jnp.array([0.5, 0.5, 0.5])
    loss = value_losses.clipped_squared_error(values, old, jnp.array([1.0, 1.0, 1.0]), clip_eps=0.2)
    # The first is clipped to 0.7: (0.7 − 1)² > (0.9 − 1)². The second to 0.3: (0.1 − 1)² is larger.
    np.testing.assert_allclose(loss, [0.09, 0.81, 0.25], rtol=1e-6)


def test_binary_cross_entropy_is_the_definition():
    z, y = np.array([-2.0, 0.3, 4.0]), np.array([0.0, 0.25, 1.0])
    p = 1 / (1 + np.exp(-z))
    expected = -y * np.log(p) - (1 - y) * np.log(1 - p)
    result = value_losses.binary_cross_entropy(jnp.asarray(z), jnp.asarray(y))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert np.isfinite(value_losses.binary_cross_entropy(jnp.array(-200.0), jnp.array(1.0)))


def test_two_hot_has_two_neighbours_and_the_mean_of_the_return():
    target = np.asarray(value_losses.two_hot(RETURNS, HEAD))
    np.testing.assert_allclose(target.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(target @ HEAD.centers, RETURNS, atol=1e-5)
    assert ((target > 0).sum(axis=-1) <= 2).all()


def slow_hl_gauss(value: float, std: float) -> np.ndarray:
    """The mass of a normal distribution between the edges of each bin, by math.erf."""
    width = (HEAD.high - HEAD.low) / (HEAD.bins - 1)
    sigma = std * width
    edges = [HEAD.low + (m - 0.5) * width for m in range(HEAD.bins + 1)]
    below = [0.5 * (1 + math.erf((edge - value) / (sigma * math.sqrt(2)))) for edge in edges]
    return np.diff(below) / (below[-1] - below[0])


def test_hl_gauss_is_the_mass_of_a_gaussian_in_each_bin():
    target = np.asarray(value_losses.hl_gauss(RETURNS, HEAD, std=0.75))
    for row, value in zip(target, np.asarray(RETURNS), strict=True):
        np.testing.assert_allclose(row, slow_hl_gauss(float(value), 0.75), atol=2e-5)
    np.testing.assert_allclose(target @ HEAD.centers, RETURNS, atol=1e-3)


@pytest.mark.parametrize("targets", [value_losses.two_hot, None])
def test_cross_entropy_is_smallest_at_the_target(targets):
    """Gibbs' inequality: no other distribution has a lower cross-entropy."""
    make = targets or (lambda r, h: value_losses.hl_gauss(r, h, std=0.75))
    target = make(RETURNS, HEAD)
    best = value_losses.cross_entropy(jnp.log(target + 1e-12), target)
    for seed in range(5):
        other = jax.random.normal(jax.random.key(seed), target.shape)
        assert (value_losses.cross_entropy(other, target) > best).all()


def test_sparse_positions_of_hand_computed_answers():
    lengths = jnp.array([[11], [4], [1]])
    mask = jnp.arange(12)[None] < lengths
    chosen = np.asarray(value_losses.sparse_positions(mask, (0.3, 0.6, 0.9)))
    assert np.flatnonzero(chosen[0]).tolist() == [3, 6, 9]  # of 10: 3, 6, 9
    assert np.flatnonzero(chosen[1]).tolist() == [1, 2]  # of 3: 1, 2, 3, and 3 is the last token
    assert np.flatnonzero(chosen[2]).tolist() == [0]


def test_noise_weights_of_hand_computed_groups():
    rewards = jnp.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    valid = jnp.array([True] * 9 + [True, False, False])
    weights = np.asarray(value_losses.noise_weights(rewards, valid, 4)).reshape(3, 4)
    # σ = ½, 0 and ½ (two valid answers); the floor is 1 / (2 √4) = ¼: 1/σ = 2, 4, 2.
    np.testing.assert_allclose(weights, [[0.75] * 4, [1.5] * 4, [0.75] * 4], rtol=1e-6)
    without = np.asarray(value_losses.noise_weights(rewards, valid.at[4:8].set(False), 4))
    np.testing.assert_allclose(without.reshape(3, 4)[::2], 1.0, rtol=1e-6)  # the mean of the fitted
