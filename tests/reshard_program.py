"""Saves a state over eight devices, and restores it on another mesh; run by test_checkpoint.py."""

import sys
from functools import partial

import jax
import numpy as np

from asyppo_jax.algorithm.state import create_train_state, state_shardings
from asyppo_jax.config import CheckpointConfig, MeshConfig
from asyppo_jax.runs import checkpoint
from asyppo_jax.runtime.sharding import make_mesh, placed
from tests.tiny import assert_trees_equal, make_config, make_networks


def restore(workdir: str, mesh: MeshConfig):
    config, networks = make_config(), make_networks()
    shardings = state_shardings(config, networks, make_mesh(mesh))
    shapes = jax.eval_shape(partial(create_train_state, config, networks))
    with checkpoint.make_manager(workdir, CheckpointConfig()) as manager:
        return checkpoint.restore(manager, placed(shapes, shardings))


def main(workdir: str) -> None:
    config, networks = make_config(), make_networks()
    shardings = state_shardings(config, networks, make_mesh(MeshConfig(data=8)))
    state = jax.jit(partial(create_train_state, config, networks), out_shardings=shardings)()
    with checkpoint.make_manager(workdir, CheckpointConfig()) as manager:
        checkpoint.save(manager, state, {"next_index": 3}, None)
    np.savez(f"{workdir}/state.npz", *jax.tree.leaves(state))
    restored, data = restore(workdir, MeshConfig(data=4, model=2))
    assert data == {"next_index": 3}
    assert_trees_equal(state, restored)
    kernels = [
        s.actor_params["decoder"]["layers"]["attention"]["q_kernel"] for s in (state, restored)
    ]
    assert kernels[0].sharding != kernels[1].sharding


if __name__ == "__main__":
    main(sys.argv[1])
