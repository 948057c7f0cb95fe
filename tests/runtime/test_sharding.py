"""The mesh and the table of rules; test_multi_device.py tests that shards give equal numbers."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from asyppo_jax.algorithm.state import state_shardings
from asyppo_jax.config import ConfigError, MeshConfig
from asyppo_jax.runtime.sharding import RULES, make_mesh, param_shardings
from tests.tiny import make_config, make_networks


def test_a_mesh_that_does_not_use_all_devices_is_refused():
    devices = jax.device_count()
    with pytest.raises(ConfigError, match=r"there (is 1 device|are \d+ devices); make data"):
        make_mesh(MeshConfig(data=devices + 1, model=1))


def test_rules_name_every_axis_once():
    names = [name for name, _ in RULES]
    assert len(names) == len(set(names))


def test_parameters_and_their_moments_are_sharded_by_the_rules():
    config, networks = make_config(), make_networks()
    shardings = state_shardings(config, networks, make_mesh(MeshConfig()))
    kernel = shardings.actor_params["decoder"]["layers"]["attention"]["q_kernel"]
    assert kernel.spec == PartitionSpec(None, "data", "model", None)
    stacked = shardings.critic_params["decoder"]["layers"]["attention"]["q_kernel"]
    assert stacked.spec == PartitionSpec(None, None, "data", "model", None)
    moments = [
        leaf.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(shardings.critic_opt_state)
        if jax.tree_util.keystr(path).endswith("['attention']['q_kernel']")
    ]
    assert moments == [stacked.spec, stacked.spec]


def test_an_axis_that_the_mesh_does_not_divide_is_not_sharded():
    import flax.linen as nn

    mesh = make_mesh(MeshConfig())
    size = mesh.shape["data"] + 1 if mesh.shape["data"] > 1 else 3
    box = nn.LogicallyPartitioned(jnp.zeros((size, 4)), names=("embed", "head_dim"))
    spec = param_shardings({"x": box}, mesh)["x"].spec
    expected = "data" if size % mesh.shape["data"] == 0 else None
    assert spec == PartitionSpec(expected, None)
