"""The parts of a block: the norm, the cache, the gated MLP."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from asyppo_jax.models.layers import GatedMLP, RMSNorm, write_cache
from tests.tiny import QWEN3


def test_the_norm_divides_by_the_root_mean_square_in_float32():
    x = jnp.array([[3.0, 4.0]], jnp.bfloat16)
    norm = RMSNorm(eps=0.0)
    params = meta.unbox(norm.init(jax.random.key(0), x))
    out = jnp.asarray(norm.apply(params, x))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        out.astype(jnp.float32), x.astype(jnp.float32) / 12.5**0.5, rtol=1e-2
    )


def test_new_keys_go_to_their_layer_and_slot_and_nowhere_else():
    cache = jnp.zeros((2, 1, 4, 1, 3)), jnp.zeros((2, 1, 4, 1, 3))
    new = jnp.ones((1, 2, 1, 3))
    (keys, values), layer_keys, layer_values = write_cache(
        cache, new, 2 * new, jnp.int32(1), jnp.int32(1)
    )
    expected = np.zeros((2, 1, 4, 1, 3))
    expected[1, :, 1:3] = 1
    np.testing.assert_array_equal(keys, expected)
    np.testing.assert_array_equal(values, 2 * expected)
    np.testing.assert_array_equal(layer_keys, expected[1])
    np.testing.assert_array_equal(layer_values, 2 * expected[1])


def test_the_mlp_is_gated_by_silu():
    mlp, x = GatedMLP(QWEN3), jax.random.normal(jax.random.key(0), (1, 2, 32))
    params = meta.unbox(mlp.init(jax.random.key(1), x))
    gate, up, down = (params["params"][f"{n}_kernel"] for n in ("gate", "up", "down"))
    gated = x @ gate
    expected = (gated / (1 + jnp.exp(-gated)) * (x @ up)) @ down
    np.testing.assert_allclose(jnp.asarray(mlp.apply(params, x)), expected, rtol=1e-4, atol=1e-7)
