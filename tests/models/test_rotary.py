"""Rotary embedding: frequencies, scaling, and what a rotation keeps."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.models.rotary import rotary_frequencies, rotate, rotation_at
from tests.tiny import LLAMA3, QWEN3


def test_frequencies_fall_from_one_by_the_base():
    frequencies = rotary_frequencies(QWEN3)
    expected = [10000.0 ** (-2 * i / 16) for i in range(8)]
    np.testing.assert_allclose(frequencies, expected, rtol=1e-6)


def test_llama3_scaling_keeps_short_waves_and_stretches_long_ones_by_the_factor():
    plain = np.asarray(rotary_frequencies(QWEN3))
    scaled = np.asarray(rotary_frequencies(LLAMA3))
    turns = 32 * plain / (2 * math.pi)  # in the original context of 32 positions
    assert (turns < 1).any() and (turns > 4).any()
    np.testing.assert_allclose(scaled[turns > 4], plain[turns > 4], rtol=1e-6)
    np.testing.assert_allclose(scaled[turns < 1], plain[turns < 1] / 8, rtol=1e-6)


def test_rotation_at_position_zero_is_the_identity_and_keeps_lengths_elsewhere():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2, 16))
    turned = rotate(x, rotation_at(jnp.array([[0, 1, 7]]), QWEN3))
    np.testing.assert_allclose(turned[:, 0], x[:, 0], rtol=1e-6)
    lengths = (jnp.linalg.norm(y, axis=-1) for y in (x, turned))
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_rotated_products_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(1), (2, 1, 1, 1, 16))

    def product(at, to):
        turned = (
            rotate(x, rotation_at(jnp.array([[place]]), QWEN3)) for x, place in ((q, at), (k, to))
        )
        return jnp.sum(jnp.multiply(*turned))

    np.testing.assert_allclose(product(5, 3), product(12, 10), rtol=1e-5)
    assert abs(product(5, 3) - product(5, 4)) > 1e-4
