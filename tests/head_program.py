"""The gradient of log-probs and entropies on eight simulated devices and on one of them.

Run by algorithm/test_forward.py: OUT gets the largest difference of the two, relative to the
largest gradient of each parameter.
"""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.algorithm.batching.rows import Rows
from asyppo_jax.algorithm.forward import completion_log_probs
from asyppo_jax.config import MeshConfig
from asyppo_jax.models.actor_critic import Actor, Networks, actor_shapes
from asyppo_jax.runtime.sharding import batch_sharding, make_mesh, param_shardings, put
from tests.tiny import QWEN2, make_actor_params, make_config

CHUNKS = 5  # of 4 positions


def gradients_on(devices: list, model: int):
    """The gradients of all parameters; `model` divides the vocabulary of 64 tokens."""
    architecture = dataclasses.replace(QWEN2, vocab_size=64, num_layers=1)
    networks = Networks(Actor(architecture), None)
    mesh, batching = make_mesh(MeshConfig(model=model), devices), make_config(0).batching
    shardings = param_shardings(actor_shapes(networks.actor), mesh)
    tokens = np.random.default_rng(0).integers(0, 64, (8, 4 + 4 * CHUNKS)).astype(np.int32)
    mask = np.ones((8, 4 * CHUNKS), bool)

    def loss(params, rows):
        log_probs, entropy = completion_log_probs(params, rows, networks, batching)
        return jnp.sum(jnp.sin(log_probs)) + jnp.sum(jnp.cos(entropy))

    with jax.set_mesh(mesh):
        rows = Rows(jnp.array(tokens), jnp.ones_like(tokens), jnp.array(mask))
        rows = put(rows, jax.tree.map(lambda _: batch_sharding(mesh), rows))
        params = put(make_actor_params(networks), shardings)
        gradients = jax.jit(jax.grad(loss), out_shardings=shardings)(params, rows)
    return jax.tree.map(np.asarray, gradients)


def main(out: str) -> None:
    one, eight = gradients_on(jax.devices()[:1], 1), gradients_on(jax.devices(), 2)
    differences = jax.tree.map(lambda a, b: np.max(np.abs(a - b)) / np.max(np.abs(a)), one, eight)
    with open(out, "w") as file:
        json.dump(float(max(jax.tree.leaves(differences))), file)


if __name__ == "__main__":
    main(sys.argv[1])
