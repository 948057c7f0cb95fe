"""Rotary position embedding (arXiv 2104.09864)."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.config import ModelConfig


class Rotation(NamedTuple):
    """The turns of every token, the same in all layers: made once, since cosines are dear."""

    cos: Float[Array, "B T 1 half"]
    sin: Float[Array, "B T 1 half"]


def rotary_frequencies(config: ModelConfig) -> Float[Array, " half"]:
    """θ^(−2i/d) for i < d/2 (arXiv 2104.09864), in float32, with Llama-3's scaling if configured.

    The scaling leaves short wavelengths alone, divides long ones by `factor`, and blends linearly
    (in original_max_position / wavelength) in between.
    """
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    turns = scaling.original_max_position / wavelengths
    blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = jnp.clip(blend, 0.0, 1.0)
    return (1 - blend) * frequencies / scaling.factor + blend * frequencies


def rotation_at(positions: Int[Array, "B T"], config: ModelConfig) -> Rotation:
    """cos and sin of position · frequency_i, in float32."""
    frequencies = rotary_frequencies(config)
    angles = (positions[..., None].astype(jnp.float32) * frequencies[None, None])[:, :, None, :]
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: Float[Array, "B T H d"], rotation: Rotation) -> Float[Array, "B T H d"]:
    """Turns the pairs (x_i, x_{i + d/2}) by their angles, in float32."""
    cos, sin = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
