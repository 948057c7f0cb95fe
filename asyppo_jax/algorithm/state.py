"""The state of a run before its first step, its shapes, and its shardings."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta
from jax.sharding import Mesh
from jaxtyping import Array

from asyppo_jax.algorithm.optimizer import critic_optimizer, make_optimizer
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import (
    Networks,
    actor_shapes,
    critic_shapes,
    init_actor,
    init_critics,
)
from asyppo_jax.runtime.phase_meshes import critics_mesh
from asyppo_jax.runtime.sharding import like_params, param_shardings, replicated
from asyppo_jax.types import TrainState

PROGRAMS_KEPT = 16  # sets of programs that a process keeps: those used last
_READ_BY_NO_PROGRAM = (
    *("seed", "num_steps", "train_data", "eval_data", "reward"),
    *("evaluation", "checkpoint", "log"),
)


def create_train_state(
    config: Config,
    networks: Networks,
    *,
    actor_params: Any = None,
    critic_params: Any = None,
    key: Array | None = None,
) -> TrainState:
    """The state before the first step; parameters that are not given are random, from the seed.

    Parameters are unboxed dicts of arrays; those of the critics are stacked. It can be called
    inside `jax.jit`. `key` is the data of the seed's key (None: of `config.seed`); as an argument
    of a compiled program it lets all seeds share the program.
    """
    seed_key = jax.random.key(config.seed) if key is None else jax.random.wrap_key_data(key)
    actor_key, critic_key, run_key = jax.random.split(seed_key, 3)
    num_critics = config.algorithm.num_critics
    if actor_params is None:
        actor_params = meta.unbox(init_actor(networks.actor, actor_key))
    if critic_params is None and networks.critic is not None:
        critic_params = meta.unbox(init_critics(networks.critic, critic_key, num_critics))
    critic_params = {} if networks.critic is None else critic_params
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
        actor_params=actor_params,
        actor_opt_state=make_optimizer(config.actor_optimizer).init(actor_params),
        critic_params=critic_params,
        critic_opt_state=critic_optimizer(config).init(critic_params) if num_critics else (),
    )


def programs_config(config: Config) -> Config:
    """The config with what no compiled program reads as in `Config()`: seed, data, logs and so on.

    Runs that differ only there share their programs in a process.
    """
    return replace(config, **{name: getattr(Config(), name) for name in _READ_BY_NO_PROGRAM})


def state_shapes(config: Config, networks: Networks) -> TrainState:
    """The shapes of `create_train_state`, traced once per process; nothing is computed."""
    return _state_shapes(programs_config(config), networks)


@lru_cache(maxsize=PROGRAMS_KEPT)
def _state_shapes(config: Config, networks: Networks) -> TrainState:
    return jax.eval_shape(lambda: create_train_state(config, networks))


def state_shardings(config: Config, networks: Networks, mesh: Mesh) -> TrainState:
    """The sharding of every leaf of the state on the devices, by the table `sharding.RULES`.

    `mesh` is that of the actor. The critics are on `critics_mesh(config.mesh, mesh)`.
    """
    of_critics = critics_mesh(config.mesh, mesh)
    actor = param_shardings(actor_shapes(networks.actor), mesh)
    critics: Any = {}
    if networks.critic is not None:
        boxed = critic_shapes(networks.critic, config.algorithm.num_critics)
        critics = param_shardings(boxed, of_critics)
    shapes = state_shapes(config, networks)
    replicated_sharding: Any = replicated(mesh)
    return TrainState(
        step=replicated_sharding,
        key=replicated_sharding,
        actor_params=actor,
        actor_opt_state=like_params(shapes.actor_opt_state, shapes.actor_params, actor, mesh),
        critic_params=critics,
        critic_opt_state=like_params(
            shapes.critic_opt_state, shapes.critic_params, critics, of_critics
        ),
    )
