"""RMSNorm, whose backward pass is written out.

Autodiff keeps what each step multiplied, in float32; what it needs is x as it came and one number a
row.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(
    x: Float[Array, "*B D"], scale: Float[Array, " D"], eps: float
) -> Float[Array, "*B D"]:
    """x / rms(x) · scale over the last axis, rms(x) = √(mean x² + eps) (arXiv 1910.07467).

    Computed in float32, given in the dtype of x.
    """
    return _forward(x, scale, eps)[0]


def _forward(x, scale, eps):
    x32 = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    scaled = x32 * inverse * _along(scale, x32)
    return scaled.astype(x.dtype), (x, scale, inverse)


def _backward(eps, saved, by_out):
    """With x̂ = x / rms(x): ∂x = (∂x̂ − x̂ · mean(∂x̂ · x̂)) / rms(x), where ∂x̂ = ∂out · scale."""
    del eps
    x, scale, inverse = saved
    normed, by_out = x.astype(jnp.float32) * inverse, by_out.astype(jnp.float32)
    by_normed = by_out * _along(scale, by_out)
    shared = jnp.mean(by_normed * normed, axis=-1, keepdims=True)
    by_x = inverse * (by_normed - normed * shared)
    by_scale = jnp.sum(by_out * normed, axis=tuple(range(x.ndim - 1)))
    return by_x.astype(x.dtype), by_scale.astype(scale.dtype)


rms_norm.defvjp(_forward, _backward)


def _along(scale: Float[Array, " D"], x: Float[Array, "*B D"]) -> Float[Array, "*one D"]:
    return jnp.reshape(scale, (1,) * (x.ndim - 1) + (-1,))
