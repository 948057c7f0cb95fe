"""Meshes of the same devices in the same order, and arrays that go from one to another.

test_multi_device.py and test_multi_host.py test that steps and runs give the numbers of one mesh.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.algorithm.offload import programs
from asyppo_jax.config import MeshConfig
from asyppo_jax.runtime.phase_meshes import (
    critics_mesh,
    on_mesh,
    reshard,
    sampling_mesh,
    to_mesh,
)
from asyppo_jax.runtime.sharding import batch_sharding, make_mesh, put, replicated
from tests.simulated import run_module
from tests.tiny import make_config, make_networks, make_rollout


def test_without_sizes_of_their_own_all_phases_have_the_same_mesh():
    config, networks = make_config(), make_networks()
    mesh = make_mesh(config.mesh)
    assert sampling_mesh(config.mesh, mesh) is critics_mesh(config.mesh, mesh) is mesh
    assert config.mesh.is_one_program
    assert all(program.mesh is mesh for program in programs(networks, config, mesh).values())


def test_one_size_of_the_critics_makes_the_phases_programs_of_their_own():
    assert MeshConfig(model=2, critic_model=2, sampling_model=4).is_one_program
    assert not MeshConfig(model=2, critic_model=1).is_one_program
    assert not MeshConfig(offload="idle").is_one_program


def _on_eight_devices() -> dict:
    """What the test below checks, in a process of its own; run by `python -m`."""
    config = MeshConfig(model=2, sampling_model=4, critic_model=1)
    mesh = make_mesh(config)
    of_sampling, of_critics = sampling_mesh(config, mesh), critics_mesh(config, mesh)
    orders = [[d.id for d in m.devices.flat] for m in (mesh, of_sampling, of_critics)]
    full = np.arange(64.0).reshape(8, 8)
    x = put(full, jax.NamedSharding(mesh, jax.P("data", "model")))
    rollout = jax.device_put(make_rollout(make_config()), batch_sharding(mesh))
    six, traced = jax.tree.map(lambda x: x[:6], rollout), []

    def program(batch, scalar, params):
        traced.append(dict(jax.sharding.get_abstract_mesh().shape))
        return jnp.sum(batch.rewards) + scalar + jnp.sum(params["x"])

    scalar = put(np.float32(1), replicated(mesh))
    with jax.set_mesh(mesh), jax.transfer_guard("disallow_explicit"):
        y = reshard(x, jax.NamedSharding(of_sampling, jax.P("model", "data")), lambda x: 2 * x)
        params = {"x": reshard(x, batch_sharding(of_critics))}
        result = on_mesh(jax.jit(program), of_critics)(rollout, scalar, params)
        moved = to_mesh(rollout, of_critics), to_mesh(six, of_critics), to_mesh(x, mesh)
    np.testing.assert_array_equal(y, 2 * full)
    return {
        "shapes": [m.devices.shape for m in (mesh, of_sampling, of_critics)],
        "same_order": orders[0] == orders[1] == orders[2],
        "shard": y.addressable_shards[0].data.shape,
        "traced": traced,
        "right": bool(jnp.allclose(result, np.sum(rollout.rewards) + 1 + full.sum())),
        "rows": [len(m.tokens.addressable_shards[0].data) for m in moved[:2]],
        "unchanged": moved[2] is x,
    }


def test_arrays_go_from_mesh_to_mesh_without_the_host():
    printed = run_module("tests.runtime.test_phase_meshes", devices=8, timeout=120)
    assert json.loads(printed) == {
        "shapes": [[4, 2], [2, 4], [8, 1]],
        "same_order": True,
        "shard": [2, 4],
        "traced": [{"data": 8, "model": 1}],
        "right": True,
        "rows": [4, 6],  # 32 rows over 8 shards; 6 rows are replicated
        "unchanged": True,
    }


if __name__ == "__main__":
    print(json.dumps(_on_eight_devices()))
