from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops.norm import rms_norm

EPS = 1e-3


def _plain(x, scale):
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + EPS) * scale[None, None]


def _draw(*shapes, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("stacked", [False, True])
def test_values_and_gradients_equal_those_of_autodiff(stacked):
    inputs = _draw(*[(3, *s) if stacked else s for s in ((2, 5, 8), (8,))])

    def output_and_gradients(f):
        f = jax.vmap(f) if stacked else f
        out, vjp = jax.vjp(f, *inputs)
        return out, vjp(jnp.cos(out))

    norm = lambda x, scale: rms_norm(x, scale, EPS)  # noqa: E731
    ours = jax.jit(output_and_gradients, static_argnums=0)(norm)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        ours,
        output_and_gradients(_plain),
    )


def test_of_bfloat16_rows_only_one_number_per_row_is_stored_in_float32():
    x, scale = *_draw((4, 64), dtype=jnp.bfloat16), jnp.ones(64)
    out: Any
    out, vjp = jax.vjp(lambda x, scale: rms_norm(x, scale, EPS), x, scale)
    float32_residuals = [leaf for leaf in jax.tree.leaves(vjp) if leaf.dtype == jnp.float32]
    assert sum(leaf.size for leaf in float32_residuals) == 4 + 64  # one per row, and the scale
    grad_x, grad_scale = vjp(jnp.ones_like(out))
    assert (grad_x.dtype, grad_scale.dtype) == (jnp.bfloat16, jnp.float32)


def test_sums_are_computed_in_float32():
    # A bfloat16 sum of 4,096 equal squares would stop growing at 256 of them.
    out = rms_norm(jnp.full((1, 4096), 2, jnp.bfloat16), jnp.ones(4096), 0.0)
    np.testing.assert_array_equal(out, 1)
