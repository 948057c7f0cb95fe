"""A run with checkpoints, as `train` writes it, without training."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from asyppo_jax.algorithm.state import create_train_state, state_shardings
from asyppo_jax.config import CheckpointConfig
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.runs import checkpoint
from asyppo_jax.runtime.sharding import make_mesh
from tests.tiny import make_config, save_model_directory


def write_run(directory: Path, num_critics: int = 2):
    """A run of three checkpoints of a random state, as `train` writes it; its config and state."""
    model = save_model_directory(directory / "model")
    config = make_config(
        num_critics, actor__path=model, critic__num_layers=1, prompt__template="{problem}="
    )
    networks = load_networks(config)
    shardings = state_shardings(config, networks, make_mesh(config.mesh))
    create = jax.jit(lambda: create_train_state(config, networks), out_shardings=shardings)
    state, run = create(), directory / "run"
    checkpoint.write_settings(str(run), dataclasses.asdict(config))
    accuracies = {0: 0.9, 1: 0.2, 2: 0.6, 3: 0.5}
    with checkpoint.make_manager(str(run), CheckpointConfig(keep=3)) as manager:
        for step in (1, 2, 3):
            scaled = jax.tree.map(lambda x, s=step: x * s if x.ndim else x, state.actor_params)
            now = state.replace(step=np.int32(step), actor_params=scaled)
            checkpoint.save(manager, now, {}, accuracies[step])
    rows = [json.dumps({"step": s, "evaluate/accuracy": a}) for s, a in accuracies.items()]
    (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    return str(run), config, networks, state
