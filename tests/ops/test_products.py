import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops.products import (
    dense,
    gated_mlp,
    materialize,
    small_batch_dense,
    small_batch_gated_mlp,
)

D, F = 6, 10


def _draw(*shapes, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [0.5 * jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def _plain_mlp(x, gate, up, down):
    return (jax.nn.silu(x @ gate) * (x @ up)) @ down


PAIRS = {
    "dense": (dense, jnp.matmul, ((2, 5, D), (D, F))),
    "gated_mlp": (gated_mlp, _plain_mlp, ((2, 5, D), (D, F), (D, F), (F, D))),
}


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("stacked", [False, True])
def test_values_and_gradients_equal_those_of_autodiff(name, stacked):
    function, plain, shapes = PAIRS[name]
    inputs = _draw(*[(3, *s) if stacked else s for s in shapes])

    def output_and_gradients(f):
        f = jax.vmap(f) if stacked else f
        out, vjp = jax.vjp(f, *inputs)
        return out, vjp(jnp.cos(out))

    ours = jax.jit(output_and_gradients, static_argnums=0)(function)
    expected = output_and_gradients(plain)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), ours, expected
    )


@pytest.mark.parametrize("name", list(PAIRS))
def test_gradients_keep_the_dtype_of_their_inputs(name):
    function, _, shapes = PAIRS[name]
    inputs = _draw(*shapes, dtype=jnp.bfloat16)
    gradients = jax.grad(lambda *x: jnp.sum(function(*x)).astype(jnp.float32), range(len(inputs)))
    assert {g.dtype for g in gradients(*inputs)} == {jnp.dtype("bfloat16")}


def test_materialize_adds_a_barrier_on_cpus_only():
    def lowered(platform):
        traced = jax.jit(lambda x: materialize(x * 2) + 1).trace(jnp.ones(3))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "optimization_barrier" in lowered("cpu")
    assert "optimization_barrier" not in lowered("tpu")


def test_the_mlp_stores_two_wide_arrays_for_its_backward_pass():
    inputs = _draw((2, 5, D), (D, F), (D, F), (F, D))
    _, vjp = jax.vjp(gated_mlp, *inputs)
    wide = [residual for residual in jax.tree.leaves(vjp) if residual.shape == (2, 5, F)]
    assert len(wide) == 2


@pytest.mark.parametrize("rows", [1, 64, 65, 129])
def test_products_of_a_small_batch_equal_plain_products(rows):
    x, kernel, up, down = _draw((rows, D), (F, D), (F, D), (D, F))
    product = jax.jit(small_batch_dense)(x, kernel)
    np.testing.assert_allclose(product, x @ kernel.T, rtol=2e-5, atol=2e-5)
    mlp_out = jax.jit(small_batch_gated_mlp)(x, kernel, up, down)
    expected = _plain_mlp(x, kernel.T, up.T, down.T)
    np.testing.assert_allclose(mlp_out, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("rows", [3, 65])
def test_products_of_a_small_batch_have_the_requested_dtype(rows):
    x, kernel = _draw((rows, D), (F, D), dtype=jnp.bfloat16)
    assert small_batch_dense(x, kernel).dtype == jnp.bfloat16
    assert small_batch_dense(x, kernel, jnp.float32).dtype == jnp.float32


def test_the_weights_are_the_left_operand_only_for_a_small_batch():
    def first_operand(rows):
        x, kernel = jnp.zeros((rows, D)), jnp.zeros((F, D))
        text = str(jax.jit(small_batch_dense).lower(x, kernel).compile().as_text())
        return next(line for line in text.splitlines() if " dot(" in line)

    assert f"f32[{F},64]" in first_operand(64)
    assert f"f32[65,{F}]" in first_operand(65)
