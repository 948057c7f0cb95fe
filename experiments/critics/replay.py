"""Critics trained on recorded rollouts, and their errors on recorded states."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from asyppo_jax.algorithm.head_init import init_heads_from_rollout
from asyppo_jax.algorithm.state import create_train_state
from asyppo_jax.algorithm.train_step import score_rollout, step_critics
from asyppo_jax.config import Config
from asyppo_jax.evaluation.value_errors import PositionErrors, value_errors, values_at
from asyppo_jax.models.pretrained import load_critic_params, load_networks
from asyppo_jax.runtime.sharding import make_mesh
from asyppo_jax.sampling.loaded import LoadedCritics
from asyppo_jax.tasks.tokenizers import load_tokenizer
from experiments.critics.record import load_rollout, load_states


def replay(
    config: Config, record: Path, at: Sequence[int]
) -> Iterator[tuple[int, list[PositionErrors], dict[str, float]]]:
    """Yields (step, errors, metrics of that step) of critics that learn from a record.

    The critics do what they do in a run: before each update they score the rollout. The actor and
    so the rollouts are those of the record.
    """
    networks, tokenizer = load_networks(config), load_tokenizer(config.actor.path)
    params: Any = jax.device_put(load_critic_params(config, networks))
    state = create_train_state(config, networks, actor_params={}, critic_params=params)
    optimizer_state, key = state.critic_opt_state, state.key
    mesh = make_mesh(config.mesh, jax.devices()[:1])

    @jax.jit  # the key is an argument, so that all seeds share one compiled program
    def learn(params, optimizer_state, key, step, rollout):
        static = {"networks": networks, "config": config}
        experience, metrics = score_rollout(params, key, step, rollout, **static)
        params, optimizer_state, more = step_critics(
            params, optimizer_state, key, step, experience, **static
        )
        return params, optimizer_state, metrics | more

    @jax.jit
    def init_heads(params, rollout):
        return init_heads_from_rollout(params, rollout, networks, config)

    with jax.set_mesh(mesh):
        for step in range(max(at)):
            rollout = load_rollout(record / f"rollout_{step + 1:02}.npz", config, tokenizer)
            rollout = jax.device_put(rollout)
            if step == 0 and config.value.head_init == "rollout":
                params = init_heads(params, rollout)
            params, optimizer_state, metrics = learn(
                params, optimizer_state, key, np.int32(step), rollout
            )
            if step + 1 in at:
                file = record / f"states_{step + 1:02}.npz"
                states = load_states(file, config, tokenizer)
                num_critics = config.algorithm.num_critics
                critics = LoadedCritics(
                    str(record), networks, params, num_critics, config, step + 1, mesh
                )
                errors = value_errors(states, values_at(critics, states), config.algorithm)
                yield step + 1, errors, {k: float(v) for k, v in metrics.items()}
