"""The shared skeleton of both updates on a problem small enough for a plain loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asyppo_jax.algorithm.minibatch_updates import Minibatch, update_in_minibatches
from asyppo_jax.algorithm.placement import Placement

ROWS = jnp.arange(8.0)[:, None] * jnp.ones((1, 3))
INDICES = jnp.array([[0, 1, 2, 3], [4, 5, 6, 7], [3, 2, 1, 0]])


def _loss(params, rows, denominator):
    error = rows @ params["kernel"] - 1.0
    loss = jnp.sum(jnp.square(error)) / denominator
    return loss, ({"loss": loss}, {"error": jnp.max(jnp.abs(error))})


@pytest.mark.parametrize("size", [1, 2, 4])
def test_updates_are_those_of_a_loop_over_full_minibatches(size):
    params, optimizer = {"kernel": jnp.array([0.1, -0.2, 0.3])}, optax.sgd(1e-3)

    def read_minibatch(index):
        rows: Any = ROWS[index]  # any pytree of rows will do
        return Minibatch(rows, 4, jnp.float32(4))

    ours, _, (sums, maxima, norms) = update_in_minibatches(
        _loss,
        params,
        optimizer.init(params),
        INDICES,
        read_minibatch,
        optimizer=optimizer,
        placement=Placement(None, jnp.dtype("float32"), 3),
        microbatch_size=size,
    )
    kernel = params["kernel"]
    for i, index in enumerate(INDICES):
        found = jax.value_and_grad(_loss, has_aux=True)({"kernel": kernel}, ROWS[index], 4.0)
        (loss, (_, worst)), grads = found
        np.testing.assert_allclose(sums["loss"][i], loss, rtol=1e-5)
        np.testing.assert_allclose(maxima["error"][i], worst["error"], rtol=1e-5)
        np.testing.assert_allclose(norms[i], optax.tree.norm(grads), rtol=1e-5)
        kernel = kernel - 1e-3 * grads["kernel"]
    np.testing.assert_allclose(ours["kernel"], kernel, rtol=1e-5)
