"""The parts of a block: the norm and the gated MLP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from asyppo_jax.models.layers import Block, GatedMLP, RMSNorm, with_outputs_first
from asyppo_jax.models.rotary import rotation_at
from tests.tiny import QWEN2, QWEN3


def test_the_norm_divides_by_the_root_mean_square_in_float32():
    x = jnp.array([[3.0, 4.0]], jnp.bfloat16)
    norm = RMSNorm(eps=0.0)
    params = meta.unbox(norm.init(jax.random.key(0), x))
    out = jnp.asarray(norm.apply(params, x))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        out.astype(jnp.float32), x.astype(jnp.float32) / 12.5**0.5, rtol=1e-2
    )


def test_the_mlp_is_gated_by_silu():
    mlp, x = GatedMLP(QWEN3), jax.random.normal(jax.random.key(0), (1, 2, 32))
    params = meta.unbox(mlp.init(jax.random.key(1), x))
    gate, up, down = (params["params"][f"{n}_kernel"] for n in ("gate", "up", "down"))
    gated = x @ gate
    expected = (gated / (1 + jnp.exp(-gated)) * (x @ up)) @ down
    np.testing.assert_allclose(jnp.asarray(mlp.apply(params, x)), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "config", [QWEN3, pytest.param(QWEN2, marks=pytest.mark.slow)], ids=["qwen3", "qwen2"]
)
def test_a_block_with_outputs_first_is_the_block(config):
    """One token a row: a Qwen3 has norms of queries and keys, a Qwen2 biases."""
    x = jax.random.normal(jax.random.key(0), (5, 1, config.embed_dim))
    rotation = rotation_at(jnp.arange(5)[:, None], config)
    mix = lambda queries, keys, values: (queries + keys.mean() + values.mean(), None)  # noqa: E731
    params = meta.unbox(Block(config).init(jax.random.key(1), x, rotation, None, mix))["params"]
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape), params)
    expected, _ = Block(config).apply({"params": params}, x, rotation, None, mix)
    few = Block(config, outputs_first=True)
    found, _ = few.apply({"params": with_outputs_first(params)}, x, rotation, None, mix)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
