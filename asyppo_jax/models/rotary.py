"""Rotary position embedding (arXiv 2104.09864)."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.config import ModelConfig


class Rotation(NamedTuple):
    """cos and sin of every token's rotary angles; computed once and used by all layers."""

    cos: Float[Array, "B T 1 half"]
    sin: Float[Array, "B T 1 half"]


def rotary_frequencies(config: ModelConfig) -> Float[Array, " half"]:
    """θ^(−2i/d) for i < d/2 (arXiv 2104.09864), in float32, with Llama-3's scaling if configured.

    The scaling keeps the frequencies of short wavelengths and divides those of long wavelengths by
    `factor`. In between it interpolates linearly in original_max_position / wavelength.
    """
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    num_periods = scaling.original_max_position / wavelengths
    blend = (num_periods - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blend = jnp.clip(blend, 0.0, 1.0)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies


def rotation_at(positions: Int[Array, "B T"], config: ModelConfig) -> Rotation:
    """cos and sin of position · frequency_i, in float32."""
    frequencies = rotary_frequencies(config)
    angles = (positions[..., None].astype(jnp.float32) * frequencies[None, None])[:, :, None, :]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: Float[Array, "B T H d"], rotation: Rotation) -> Float[Array, "B T H d"]:
    """`x` with each pair (x_i, x_{i + d/2}) rotated by its angle, in float32; the dtype of `x`."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
