"""Rotary embedding: frequencies, Llama-3's scaling, and invariants of rotations."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.models.rotary import rotary_frequencies, rotate, rotation_at
from tests.tiny import LLAMA3, QWEN3


def test_frequencies_are_powers_of_the_base():
    frequencies = rotary_frequencies(QWEN3)
    expected = [10000.0 ** (-2 * i / 16) for i in range(8)]
    np.testing.assert_allclose(frequencies, expected, rtol=1e-6)


def test_llama3_scaling_keeps_short_wavelengths_and_divides_low_frequencies_by_the_factor():
    plain = np.asarray(rotary_frequencies(QWEN3))
    scaled = np.asarray(rotary_frequencies(LLAMA3))
    num_periods = 32 * plain / (2 * math.pi)  # in the original context of 32 positions
    assert (num_periods < 1).any() and (num_periods > 4).any()
    np.testing.assert_allclose(scaled[num_periods > 4], plain[num_periods > 4], rtol=1e-6)
    np.testing.assert_allclose(scaled[num_periods < 1], plain[num_periods < 1] / 8, rtol=1e-6)


def test_rotation_at_position_zero_is_the_identity_and_keeps_lengths_elsewhere():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 16))
    rotated = rotate(x, rotation_at(jnp.array([[0, 1, 7]]), QWEN3))
    np.testing.assert_allclose(rotated[:, 0], x[:, 0], rtol=1e-6)
    lengths = (jnp.linalg.norm(y, axis=-1) for y in (x, rotated))
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_products_of_rotated_vectors_depend_only_on_their_distance():
    q, k = jax.random.normal(jax.random.key(1), (2, 1, 1, 1, 16))

    def product(query_position, key_position):
        positions = ((q, query_position), (k, key_position))
        rotated = (rotate(x, rotation_at(jnp.array([[p]]), QWEN3)) for x, p in positions)
        return jnp.sum(jnp.multiply(*rotated))

    np.testing.assert_allclose(product(5, 3), product(12, 10), rtol=1e-5)
    assert abs(product(5, 3) - product(5, 4)) > 1e-4
