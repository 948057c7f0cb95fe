"""The step as one program or, with `config.mesh.offload` or `critic_model`, one per phase.

With offloading, state that a phase does not need is in host memory while the phase runs. If the
critics have a mesh of their own, batches are resharded between phases. All ways run the phases of
`train_step` and give the same numbers. `programs` has the functions and their `jax.jit` options;
training and planning both use it.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from asyppo_jax.algorithm.advantages import Estimator, find_estimator
from asyppo_jax.algorithm.policy_losses import LOSSES, PolicyLoss
from asyppo_jax.algorithm.state import (
    PROGRAMS_KEPT,
    create_train_state,
    programs_config,
    state_shardings,
)
from asyppo_jax.algorithm.train_step import Phases, phase_functions, run_phases
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.runtime.libtpu import ASYNC_GATHER_OPTIONS, REDUCE_SCATTER_OPTIONS
from asyppo_jax.runtime.phase_meshes import critics_mesh, on_mesh
from asyppo_jax.runtime.sharding import batch_sharding, replicated
from asyppo_jax.types import Experience, Metrics, Params, TrainState

# Host memory that devices read and write directly.
_HOST = "pinned_host"
# The large fields of the state, and those that are offloaded while a phase does not need them.
FIELDS = ("actor_params", "actor_opt_state", "critic_params", "critic_opt_state")
OFFLOADED = {"none": (), "optimizers": ("actor_opt_state", "critic_opt_state"), "idle": FIELDS}


class Program(NamedTuple):
    """A function of a step, how it is compiled, and the fields of the state that it reads."""

    function: Callable[..., Any]
    jit: dict[str, Any]  # options of `jax.jit`
    fields: tuple[str, ...]
    mesh: Mesh


def programs(
    networks: Networks, config: Config, mesh: Mesh, policy_loss: PolicyLoss | None = None
) -> dict[str, Program]:
    """The programs after sampling by name: the phases in their order, or "step" for all of them.

    "reference" takes the reference's parameters. With `kl_coef` > 0, "step" takes them too.
    """
    phases = phase_functions(networks, config, policy_loss)
    shardings = state_shardings(config, networks, mesh)
    on_tpu = mesh.devices.flat[0].platform == "tpu"  # other compilers do not know these options
    chosen = (REDUCE_SCATTER_OPTIONS if config.mesh.reduce_scatter else {}) | (
        ASYNC_GATHER_OPTIONS if config.mesh.async_gathers else {}
    )
    compiler = {"compiler_options": chosen} if chosen and on_tpu else {}

    def update(function: Callable[..., Any], mesh: Mesh, *fields: str) -> Program:
        placed = tuple(getattr(shardings, field) for field in fields)
        options = {"donate_argnums": (0, 1), "out_shardings": (*placed, replicated(mesh))}
        return Program(function, options | compiler, fields, mesh)

    batch, of_critics = batch_sharding(mesh), critics_mesh(config.mesh, mesh)
    reference = (shardings.actor_params,) if config.algorithm.kl_coef else ()
    step = {
        "donate_argnums": 0,
        "in_shardings": (shardings, batch, *reference),
        "out_shardings": (shardings, replicated(mesh)),
    } | compiler
    return {
        "values": Program(phases.values, {}, ("critic_params",), of_critics),
        "critics": update(phases.critics, of_critics, "critic_params", "critic_opt_state"),
        "reference": Program(phases.reference, {"out_shardings": batch}, (), mesh),
        "actor": update(phases.actor, mesh, "actor_params", "actor_opt_state"),
        "step": Program(partial(run_phases, phases=phases, config=config), step, FIELDS, mesh),
    }


def make_train_step(
    networks: Networks, config: Config, mesh: Mesh, policy_loss: PolicyLoss | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The compiled step of a run: one program if `config.mesh.is_one_program`, or one per phase.

    Two runs in a process whose `programs_config` are equal get the same function, which is traced
    and compiled once. A loss of a user's own gets a new one at each call, because what it reads may
    have changed, as happens in notebooks.

    It is called as step(state, rollout), with `config.algorithm.kl_coef` > 0 as step(state,
    rollout, reference_params); these have the shardings of `reference_shardings`. The state is
    donated. The returned state has the shardings of `resting_shardings`. `policy_loss` replaces the
    loss that `config.algorithm.loss` names.
    """
    if policy_loss is None and config.algorithm.loss in LOSSES:
        estimator = find_estimator(config.algorithm)
        return _shared_step(networks, programs_config(config), mesh, estimator)
    return _compiled_step(networks, config, mesh, policy_loss)


@lru_cache(maxsize=PROGRAMS_KEPT)
def _shared_step(
    networks: Networks, config: Config, mesh: Mesh, estimator: Estimator
) -> Callable[..., tuple[TrainState, Metrics]]:
    del estimator  # part of the key: a user may have replaced the function of a name
    return _compiled_step(networks, config, mesh, None)


def _compiled_step(
    networks: Networks, config: Config, mesh: Mesh, policy_loss: PolicyLoss | None
) -> Callable[..., tuple[TrainState, Metrics]]:
    of_phases = programs(networks, config, mesh, policy_loss)
    compiled = {
        name: jax.jit(program.function, **program.jit) for name, program in of_phases.items()
    }
    if config.mesh.is_one_program:
        return compiled["step"]
    if config.mesh.has_own("critic_model"):
        compiled = {name: on_mesh(run, of_phases[name].mesh) for name, run in compiled.items()}
    on_device = state_shardings(config, networks, mesh)
    offloaded = _offloaded_shardings(on_device, config)

    def place(state: TrainState, *needed: str) -> TrainState:
        for field in sorted(FIELDS, key=lambda name: name in needed):  # offload first: frees memory
            sharding = getattr(on_device if field in needed else offloaded, field)
            state = state.replace(**{field: jax.tree.map(_move, getattr(state, field), sharding)})
        return state

    def reference(params: Params, experience: Experience) -> jax.Array:
        # The copy on the devices is freed after the phase; that on the host stays.
        on_devices = jax.device_put(params, on_device.actor_params)
        return compiled["reference"](on_devices, experience)

    phases = Phases(
        values=compiled["values"],
        critics=compiled["critics"],
        reference=reference,
        actor=compiled["actor"],
        next_step=jax.jit(lambda step: step + 1),
    )
    return partial(run_phases, phases=phases, config=config, place=place)


def _move(x: jax.Array, sharding: jax.NamedSharding) -> jax.Array:
    if x.sharding.memory_kind == sharding.memory_kind:
        return x
    moved = jax.device_put(x, sharding)
    x.delete()  # JAX does not donate across memory kinds; reads in progress still finish
    return moved


def _offloaded_shardings(on_device: TrainState, config: Config) -> TrainState:
    """The shardings of the state with the fields of `config.mesh.offload` in host memory."""
    on_host = {
        field: jax.tree.map(lambda s: s.with_memory_kind(_HOST), getattr(on_device, field))
        for field in OFFLOADED[config.mesh.offload]
    }
    return on_device.replace(**on_host)


def resting_shardings(config: Config, networks: Networks, mesh: Mesh) -> TrainState:
    """The shardings of the state between steps; the actor's parameters are on device, to sample."""
    on_device = state_shardings(config, networks, mesh)
    offloaded = _offloaded_shardings(on_device, config)
    return offloaded.replace(actor_params=on_device.actor_params)


def reference_shardings(config: Config, networks: Networks, mesh: Mesh) -> Params:
    """The actor's shardings; with `config.mesh.offload` = "idle" in host memory."""
    shardings = state_shardings(config, networks, mesh).actor_params
    if config.mesh.offload != "idle":
        return shardings
    return jax.tree.map(lambda s: s.with_memory_kind(_HOST), shardings)


def initial_state(
    config: Config, networks: Networks, mesh: Mesh, actor_params: Params, critic_params: Params
) -> TrainState:
    """The state before the first step; the given parameters have `resting_shardings`."""
    key = np.asarray(jax.random.key_data(jax.random.key(config.seed)))
    fields = {
        field: create(key, actor_params, critic_params)
        for field, create in _field_programs(programs_config(config), networks, mesh).items()
    }
    return TrainState(actor_params=actor_params, critic_params=critic_params, **fields)


@lru_cache(maxsize=PROGRAMS_KEPT)
def _field_programs(
    config: Config, networks: Networks, mesh: Mesh
) -> dict[str, Callable[..., Any]]:
    """What creates each field of the first state that is not given, compiled, for any seed."""
    shardings = resting_shardings(config, networks, mesh)

    # One program per field: the others are dead code in it and take no memory.
    def create_field(key, actor, critics, field: str) -> Any:
        params = {"actor_params": actor, "critic_params": critics, "key": key}
        return getattr(create_train_state(config, networks, **params), field)

    return {
        field: jax.jit(partial(create_field, field=field), out_shardings=getattr(shardings, field))
        for field in ("step", "key", "actor_opt_state", "critic_opt_state")
    }
