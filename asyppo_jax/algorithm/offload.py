"""A step as three programs, between which what is idle waits in the host's memory.

`train_step` is one program, so the whole `TrainState` stays on the devices while it runs. With
`config.mesh.offload` the same functions run as values, critics and actor, one after the other, and
each finds on the devices only what it needs. The numbers are those of `train_step`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from asyppo_jax.algorithm.experience import summarize
from asyppo_jax.algorithm.state import create_train_state, state_shardings
from asyppo_jax.algorithm.train_step import (
    critic_values,
    experience_of,
    jit_train_step,
    step_actor,
    step_critics,
)
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.runtime.sharding import replicated
from asyppo_jax.types import Experience, Metrics, Params, Rollout, TrainState

# Memory of the host that a device reads and writes by itself.
_HOST = "pinned_host"
# The parts of the state that wait there while a phase does not need them.
WAITING = {
    "none": (),
    "optimizers": ("actor_opt_state", "critic_opt_state"),
    "idle": ("actor_params", "actor_opt_state", "critic_params", "critic_opt_state"),
}


class PhaseFunctions(NamedTuple):
    """What `train_step` does, in three parts that each need only a part of the state."""

    values: Callable[..., tuple[Experience, Metrics]]  # (critic params, key, step, rollout)
    critics: Callable[
        ..., tuple[Params, Any, Metrics]
    ]  # (params, opt state, key, step, experience)
    actor: Callable[..., tuple[Params, Any, Metrics]]  # (params, opt state, key, step, experience)


def phase_functions(networks: Networks, config: Config) -> PhaseFunctions:
    """The phases of a step after sampling."""

    def values(critic_params, key, step, rollout):
        state = TrainState(step, key, None, None, critic_params, None)
        found = critic_values(state, rollout, networks=networks, config=config)
        experience = experience_of(state, rollout, found, config)
        return experience, summarize(experience)

    def critics(params, opt_state, key, step, experience):
        before = TrainState(step, key, None, None, params, opt_state)
        after, metrics = step_critics(before, experience, networks=networks, config=config)
        return after.critic_params, after.critic_opt_state, metrics

    def actor(params, opt_state, key, step, experience):
        before = TrainState(step, key, params, opt_state, None, None)
        after, metrics = step_actor(before, experience, networks=networks, config=config)
        return after.actor_params, after.actor_opt_state, metrics

    return PhaseFunctions(values, critics, actor)


def _waiting_shardings(near: TrainState, config: Config) -> TrainState:
    """The `state_shardings` of what has no part in the phase that runs."""
    hosted = {
        name: jax.tree.map(lambda s: s.with_memory_kind(_HOST), getattr(near, name))
        for name in WAITING[config.mesh.offload]
    }
    return near.replace(**hosted)


def resting_shardings(config: Config, networks: Networks, mesh: Mesh) -> TrainState:
    """`state_shardings` between two steps: sampling and evaluation read the actor's parameters."""
    near = state_shardings(config, networks, mesh)
    return _waiting_shardings(near, config).replace(actor_params=near.actor_params)


def initial_state(
    config: Config, networks: Networks, mesh: Mesh, actor_params: Params, critic_params: Params
) -> TrainState:
    """The state before the first step, from parameters that lie as they rest."""
    shardings = resting_shardings(config, networks, mesh)

    def part(name: str) -> Any:
        # A program for each part: the others are dead code in it and take no room.
        def create(actor, critics):
            params = {"actor_params": actor, "critic_params": critics}
            return getattr(create_train_state(config, networks, **params), name)

        compiled = jax.jit(create, out_shardings=getattr(shardings, name))
        return compiled(actor_params, critic_params)

    names = "step", "key", "actor_opt_state", "critic_opt_state"
    parts = {name: part(name) for name in names}
    return TrainState(actor_params=actor_params, critic_params=critic_params, **parts)


def _move(x: jax.Array, to: jax.NamedSharding) -> jax.Array:
    if x.sharding.memory_kind == to.memory_kind:
        return x
    moved = jax.device_put(x, to)
    x.delete()  # JAX donates no buffer to another kind of memory; pending reads still end well
    return moved


def make_train_step(
    networks: Networks, config: Config, mesh: Mesh
) -> Callable[[TrainState, Rollout], tuple[TrainState, Metrics]]:
    """The step that a run calls: one program, or with `config.mesh.offload` its phases apart.

    Either way the state is donated, and returned as it rests.
    """
    if config.mesh.offload == "none":
        return jit_train_step(networks, config, mesh)
    near = state_shardings(config, networks, mesh)
    far = _waiting_shardings(near, config)
    run = phase_functions(networks, config)
    values = jax.jit(run.values)
    update = partial(jax.jit, donate_argnums=(0, 1))
    metrics_place = replicated(mesh)
    critics = update(
        run.critics, out_shardings=(near.critic_params, near.critic_opt_state, metrics_place)
    )
    actor = update(
        run.actor, out_shardings=(near.actor_params, near.actor_opt_state, metrics_place)
    )
    following = jax.jit(lambda step: step + 1)

    def move(state: TrainState, to: TrainState, *names: str) -> TrainState:
        moved = {n: jax.tree.map(_move, getattr(state, n), getattr(to, n)) for n in names}
        return state.replace(**moved)

    def step(state: TrainState, rollout: Rollout) -> tuple[TrainState, Metrics]:
        rest = state.key, state.step
        state = move(state, far, "actor_params")
        state = move(state, near, "critic_params")
        experience, summary = values(state.critic_params, *rest, rollout)
        state = move(state, near, "critic_opt_state")
        params, opt_state, critic_metrics = critics(
            state.critic_params, state.critic_opt_state, *rest, experience
        )
        if config.algorithm.values == "after_update":
            experience, _ = values(params, *rest, rollout)
        state = state.replace(critic_params=params, critic_opt_state=opt_state)
        state = move(state, far, "critic_params", "critic_opt_state")
        state = move(state, near, "actor_params", "actor_opt_state")
        params, opt_state, actor_metrics = actor(
            state.actor_params, state.actor_opt_state, *rest, experience
        )
        state = state.replace(actor_params=params, actor_opt_state=opt_state)
        state = move(state, far, "actor_opt_state").replace(step=following(state.step))
        return state, summary | critic_metrics | actor_metrics

    return step
