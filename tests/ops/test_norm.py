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
def test_values_and_gradients_are_those_of_autodiff(stacked):
    inputs = _draw(*[(3, *s) if stacked else s for s in ((2, 5, 8), (8,))])

    def both(f):
        f = jax.vmap(f) if stacked else f
        out, pull = jax.vjp(f, *inputs)
        return out, pull(jnp.cos(out))

    ours = jax.jit(both, static_argnums=0)(lambda x, scale: rms_norm(x, scale, EPS))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, both(_plain)
    )


def test_bfloat16_rows_keep_nothing_in_float32_but_a_number_each():
    x, scale = *_draw((4, 64), dtype=jnp.bfloat16), jnp.ones(64)
    out: Any
    out, pull = jax.vjp(lambda x, scale: rms_norm(x, scale, EPS), x, scale)
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.dtype == jnp.float32]
    assert sum(leaf.size for leaf in kept) == 4 + 64  # the rows' numbers, and the scale
    by_x, by_scale = pull(jnp.ones_like(out))
    assert (by_x.dtype, by_scale.dtype) == (jnp.bfloat16, jnp.float32)


def test_its_sums_are_float32s():
    # In bfloat16 a mean of squares of 4,096 ones would stop growing at 256.
    out = rms_norm(jnp.full((1, 4096), 2, jnp.bfloat16), jnp.ones(4096), 0.0)
    np.testing.assert_array_equal(out, 1)
