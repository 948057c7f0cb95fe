"""Blocked attention; values and gradients against plain attention are in test_self_attention.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.causal_blocks import blocked_attention
from asyppo_jax.models.attention.segments import visible


def _inputs(length, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(1), 3)
    shapes = (2, length, 4, 8), (2, length, 2, 8), (2, length, 2, 8)
    segments = jnp.where(jnp.arange(length)[None] < jnp.array([[3], [0]]), 0, 1)
    drawn = [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]
    return *drawn, segments.astype(jnp.int32)


@pytest.mark.parametrize("block", [1, 5, 12, 40])
def test_the_block_size_does_not_change_the_result(block):
    queries, keys, values, segments = _inputs(12)
    expected = attend(queries, keys, values, visible(segments, segments))
    ours = jax.jit(blocked_attention, static_argnums=4)(queries, keys, values, segments, block)
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_later_tokens_do_not_affect_earlier_outputs_or_their_gradients():
    queries, keys, values, segments = _inputs(12)

    def earlier_outputs(k, v):
        return blocked_attention(queries, k, v, segments, 5)[:, :7]

    changed = keys.at[:, 7:].set(9.0), values.at[:, 7:].set(9.0)
    np.testing.assert_array_equal(earlier_outputs(keys, values), earlier_outputs(*changed))
    gradients = jax.grad(lambda *x: jnp.sum(jnp.sin(earlier_outputs(*x))), (0, 1))(keys, values)
    assert not any(np.asarray(g[:, 7:]).any() for g in gradients)


def test_rows_of_padding_only_have_finite_results_and_gradients():
    *inputs, segments = _inputs(12)
    empty = jnp.zeros_like(segments)

    def loss(*x):
        return jnp.sum(blocked_attention(*x, segments=empty, block=5))

    value, gradients = jax.value_and_grad(loss, (0, 1, 2))(*inputs)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_gradients_keep_the_dtype_of_their_inputs():
    *inputs, segments = _inputs(12, jnp.bfloat16)

    def loss(*x):
        return jnp.sum(blocked_attention(*x, segments=segments, block=5).astype(jnp.float32))

    gradients = jax.grad(loss, (0, 1, 2))(*inputs)
    assert {g.dtype for g in gradients} == {jnp.dtype("bfloat16")}


def test_vmap_over_a_stack_of_critics_equals_separate_calls():
    *inputs, segments = _inputs(12)
    stacked = [jnp.stack([x, 2 * x]) for x in inputs]
    ours = jax.vmap(lambda *x: blocked_attention(*x, segments=segments, block=5))(*stacked)
    for i, scale in enumerate((1, 2)):
        expected = blocked_attention(*(scale * x for x in inputs), segments=segments, block=5)
        np.testing.assert_allclose(ours[i], expected, atol=2e-6)
