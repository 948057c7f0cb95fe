"""Loads a run onto a mesh of all devices, 4 × 2 of eight; run by test_load.py."""

import sys

import jax
import numpy as np

from asyppo_jax import load_actor, load_critics
from asyppo_jax.config import MeshConfig
from asyppo_jax.runtime.sharding import make_mesh


def main(path: str, out: str) -> None:
    mesh = make_mesh(MeshConfig(data=4, model=2))
    actor, critics = load_actor(path, mesh=mesh), load_critics(path, mesh=mesh)
    tokens = np.arange(14).reshape(2, 7) % 5
    leaves = jax.tree.leaves((actor.params, critics.params))
    np.savez(
        out,
        devices=jax.device_count(),
        sharded=sum(not x.sharding.is_fully_replicated for x in leaves),
        logits=actor.logits(tokens),
        values=critics.values(tokens),
        texts=np.array(actor.generate(["1+2", "2+2", "3+3"], max_completion_length=5)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
