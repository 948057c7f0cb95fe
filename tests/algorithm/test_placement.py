"""Parameters and gradients around an update, without a mesh (tests/runtime show it with one)."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from asyppo_jax.algorithm.placement import actor_placement
from tests.tiny import assert_trees_equal, make_actor_params, make_config, make_networks


@pytest.mark.parametrize("stage", [3, 2, 1])
def test_products_read_the_compute_dtype_and_gradients_add_up_in_float32(stage):
    networks, config = make_networks(), make_config(mesh__zero_stage=stage)
    params = make_actor_params(networks)
    placement = actor_placement(networks, config)._replace(dtype=jnp.dtype("bfloat16"))
    compute = placement.for_compute(params)
    assert compute["decoder"]["embedding"].dtype == jnp.bfloat16
    assert compute["decoder"]["final_norm"]["scale"].dtype == jnp.float32
    grads = placement.for_accumulation(compute)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert_trees_equal(placement.for_optimizer(grads), grads)


def test_only_stage_one_accumulates_locally():
    networks, config = make_networks(), make_config()
    stages = {
        stage: actor_placement(
            networks, replace(config, mesh=replace(config.mesh, zero_stage=stage))
        ).accumulates_locally
        for stage in (3, 2, 1)
    }
    assert stages == {3: False, 2: False, 1: True}
