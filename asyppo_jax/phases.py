"""The phases of a step as separate programs, from shapes alone: what `plan` compiles.

Each takes only the part of the `TrainState` that it needs; the rest is `held` on the chips.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from asyppo_jax.config import Config
from asyppo_jax.flops import sizes_of
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.rollouts import training_options
from asyppo_jax.sampling import decoding_params, prefill, sample
from asyppo_jax.sharding import batch_sharding, by_data_shard, placed, replicated
from asyppo_jax.train_step import (
    create_train_state,
    critic_values,
    experience_of,
    state_shardings,
    step_actor,
    step_critics,
)
from asyppo_jax.types import PromptBatch, Rollout, TrainState


@dataclass(frozen=True)
class PhaseProgram:
    """What a phase runs, ready to be lowered."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]  # shapes with shardings
    held: tuple[Any, ...]  # parts of the state that are no argument
    runs: int = 1  # a step
    jit: dict[str, Any] = field(default_factory=dict)


def phase_programs(
    config: Config, networks: Networks, mesh: Mesh
) -> tuple[dict[str, PhaseProgram], TrainState]:
    """The phases of a step in the order in which they run, and the shapes of the state."""
    shardings = state_shardings(config, networks, mesh)
    shapes = jax.eval_shape(lambda: create_train_state(config, networks))
    state = placed(shapes, shardings)
    programs = _sampling_programs(config, networks, mesh, state)
    rollout = rollout_shapes(config, mesh)
    critics = state.critic_params, state.critic_opt_state
    actor = state.actor_params, state.actor_opt_state

    def values(critic_params, key, step, rollout):
        partial_state = TrainState(step, key, None, None, critic_params, None)
        values = critic_values(partial_state, rollout, networks=networks, config=config)
        return experience_of(partial_state, rollout, values, config)

    def update_critics(params, opt_state, key, step, experience):
        before = TrainState(step, key, None, None, params, opt_state)
        after, metrics = step_critics(before, experience, networks=networks, config=config)
        return after.critic_params, after.critic_opt_state, metrics

    def update_actor(params, opt_state, key, step, experience):
        before = TrainState(step, key, params, opt_state, None, None)
        after, metrics = step_actor(before, experience, networks=networks, config=config)
        return after.actor_params, after.actor_opt_state, metrics

    with jax.set_mesh(mesh):
        compiled = jax.eval_shape(values, state.critic_params, state.key, state.step, rollout)
    experience = placed(compiled, _experience_shardings(compiled, config, mesh))
    rest = state.key, state.step
    if networks.critic is not None:
        programs["values"] = PhaseProgram(
            values, (state.critic_params, *rest, rollout), (actor, state.critic_opt_state)
        )
        out = shardings.critic_params, shardings.critic_opt_state, replicated(mesh)
        programs["critics"] = PhaseProgram(
            update_critics,
            (*critics, *rest, experience),
            (actor,),
            jit={"donate_argnums": (0, 1), "out_shardings": out},
        )
    out = shardings.actor_params, shardings.actor_opt_state, replicated(mesh)
    programs["actor"] = PhaseProgram(
        update_actor,
        (*actor, *rest, experience),
        (critics,),
        jit={"donate_argnums": (0, 1), "out_shardings": out},
    )
    return programs, state


def _sampling_programs(
    config: Config, networks: Networks, mesh: Mesh, state: TrainState
) -> dict[str, PhaseProgram]:
    sizes = sizes_of(config)
    options = training_options(config, stop_ids=(0,), pad_id=0)
    row = batch_sharding(mesh)
    prompts = PromptBatch(
        tokens=_shape((sizes.num_prompts, sizes.prompt), jnp.int32, row),
        mask=_shape((sizes.num_prompts, sizes.prompt), bool, row),
    )

    def first(actor_params, prompts):
        def by_row(params, prompts):
            lengths, logits, kept = prefill(params, prompts, networks)
            return lengths, logits, jax.tree.map(lambda x: x.swapaxes(0, 1), kept)

        run = by_data_shard(by_row, sizes.num_prompts)
        return run(decoding_params(actor_params, networks), prompts)

    def loop(actor_params, prompts, key_data):
        key = jax.random.wrap_key_data(key_data)
        return sample(actor_params, prompts, key, networks=networks, options=options)

    held = state.actor_opt_state, state.critic_params, state.critic_opt_state
    program = partial(PhaseProgram, held=held)
    return {
        "prefill": program(first, (state.actor_params, prompts)),
        "decode": program(loop, (state.actor_params, prompts, state.key)),
    }


def rollout_shapes(config: Config, mesh: Mesh) -> Rollout:
    """The shapes of a scored rollout, rows over `data`."""
    sizes, row = sizes_of(config), batch_sharding(mesh)

    def shape(*dims: int, dtype: Any) -> Any:
        return _shape((sizes.batch, *dims), dtype, row)

    return Rollout(
        tokens=shape(sizes.length, dtype=jnp.int32),
        prompt_mask=shape(sizes.prompt, dtype=bool),
        completion_mask=shape(sizes.completion, dtype=bool),
        log_probs=shape(sizes.completion, dtype=jnp.float32),
        rewards=shape(dtype=jnp.float32),
        reward_valid=shape(dtype=bool),
    )


def _shape(dims: tuple[int, ...], dtype: Any, sharding: jax.NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)


def _experience_shardings(shapes: Any, config: Config, mesh: Mesh) -> Any:
    """Rows over `data`; critics, where they come first, whole."""
    batch = sizes_of(config).batch

    def one(x):
        axis = next((i for i, size in enumerate(x.shape) if size == batch), None)
        spec = [None] * (axis or 0) + ["data"]
        return jax.NamedSharding(mesh, jax.P(*spec)) if axis is not None else replicated(mesh)

    return jax.tree.map(one, shapes)


def bytes_per_chip(tree: Any) -> float:
    """Bytes of a pytree of shapes on one chip, by its shardings."""

    def one(x) -> int:
        shape = x.sharding.shard_shape(x.shape)
        return math.prod(shape) * x.dtype.itemsize

    return float(sum(one(x) for x in jax.tree.leaves(tree)))
