"""Parameters and gradients around an update, without a mesh (tests/runtime show it with one)."""

import jax
import jax.numpy as jnp

from asyppo_jax.algorithm.placement import to_add, to_apply, to_compute
from asyppo_jax.config import MeshConfig
from asyppo_jax.models.actor_critic import actor_shapes
from tests.tiny import assert_trees_equal, make_actor_params, make_networks


def test_products_read_the_compute_dtype_and_gradients_add_up_in_float32():
    networks, mesh = make_networks(), MeshConfig()
    params, shapes = make_actor_params(networks), actor_shapes(networks.actor)
    compute = to_compute(params, shapes, jnp.dtype("bfloat16"), mesh)
    assert compute["decoder"]["embedding"].dtype == jnp.bfloat16
    assert compute["decoder"]["final_norm"]["scale"].dtype == jnp.float32
    grads = to_add(compute, shapes, mesh)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert_trees_equal(to_apply(grads, shapes, mesh), grads)
