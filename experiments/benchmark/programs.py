"""The phases of a step as compiled programs, to be run and timed several times."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.experience import make_experience, summarize
from asyppo_jax.algorithm.forward import ensemble_values
from asyppo_jax.algorithm.offload import programs
from asyppo_jax.algorithm.state import state_shardings
from asyppo_jax.runtime.sharding import batch_sharding, make_mesh
from asyppo_jax.sampling import sample
from asyppo_jax.sampling.sampler import training_options
from asyppo_jax.types import Experience, Metrics, Params, TrainState
from experiments.benchmark.inputs import (
    PAD,
    Inputs,
    actor_params,
    drawn_experience,
    first_state,
)
from experiments.benchmark.setting import Setting, rows_at_once

Seconds = dict[str, float]  # by phase


@dataclass(frozen=True)
class Program:
    """A compiled program and how to time it."""

    compile_seconds: Seconds
    run: Callable[[], Seconds]
    tokens: int  # real ones that a run samples or learns from
    notes: Callable[[], dict[str, float]]  # further fields of the result, after the runs


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any):
    """The program for these arguments, and the seconds that tracing and compiling took."""
    start = time.perf_counter()
    program = jax.jit(function, **options).lower(*arguments).compile()
    return program, time.perf_counter() - start


def timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    out = jax.block_until_ready(program(*arguments))
    return out, time.perf_counter() - start


def sampling_program(inputs: Inputs, setting: Setting) -> Program:
    """Prefill and decoding of all rows, each of its own length."""
    program, arguments, seconds = _sampler(inputs, setting, actor_params(inputs))
    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def run() -> Seconds:
        rollout, elapsed = timed(program, *arguments, next(keys))
        lengths = np.asarray(jnp.sum(rollout.completion_mask, axis=1))
        assert tuple(lengths) == setting.lengths, f"the sampler drew lengths {lengths}"
        return {"sample": elapsed}

    return Program({"sample": seconds}, run, sum(setting.lengths), dict)


def _sampler(inputs: Inputs, setting: Setting, params: Params):
    """The program, its arguments but the key, and its compile seconds."""
    options = training_options(inputs.config, stop_ids=(), pad_id=PAD)
    limits = jnp.asarray(setting.lengths, jnp.int32)

    def draw(params, prompts, limits, key):
        return sample(
            params, prompts, key, networks=inputs.networks, options=options, limits=limits
        )

    mesh = make_mesh(inputs.config.mesh)
    shardings = state_shardings(inputs.config, inputs.networks, mesh).actor_params
    rows = jax.device_put((inputs.prompts, limits), batch_sharding(mesh))
    arguments = jax.device_put(params, shardings), *rows
    with jax.set_mesh(mesh):
        program, seconds = compiled(draw, *arguments, jax.random.key(0))
    return program, arguments, seconds


def update_program(inputs: Inputs, setting: Setting) -> Program:
    """The critics' update, then the actor's: one gradient of each over all sequences."""
    state, experience, updates, seconds = _updates(inputs)
    states, metrics = [state], []

    def run() -> Seconds:
        after, of_critics, critics_seconds = updates["critics"](states.pop(), experience)
        after, of_actor, actor_seconds = updates["actor"](after, experience)
        states.append(after)
        metrics.append(of_critics | of_actor)
        return {"critics": critics_seconds, "actor": actor_seconds}

    def notes() -> dict[str, float]:
        # Of the first run, before which a peer's weights were the same.
        losses = {name: float(metrics[0][f"{name}/loss"]) for name in ("actor", "critic")}
        use = {"slot_use": row_use(inputs, setting)}
        return {f"{name}_loss": loss for name, loss in losses.items()} | use

    return Program(seconds, run, setting.real_tokens, notes)


# (state, experience) -> the next state, metrics, seconds
Update = Callable[[TrainState, Experience], tuple[TrainState, Metrics, float]]


def _updates(inputs: Inputs) -> tuple[TrainState, Experience, dict[str, Update], Seconds]:
    """The state, an experience, both updates and their compile seconds."""
    mesh = make_mesh(inputs.config.mesh)
    shardings = state_shardings(inputs.config, inputs.networks, mesh)
    state = jax.device_put(first_state(inputs), shardings)
    rollout = jax.device_put(inputs.rollout, batch_sharding(mesh))
    phases = programs(inputs.networks, inputs.config, mesh)
    updates, seconds = {}, {}
    with jax.set_mesh(mesh):
        experience = drawn_experience(inputs._replace(rollout=rollout))
        for name in ("critics", "actor"):
            phase = phases[name]
            arguments = _arguments(phase.fields, state, experience)
            program, seconds[name] = compiled(phase.function, *arguments, **phase.jit)
            updates[name] = partial(_update, program, phase.fields)
    return state, experience, updates, seconds


def _arguments(fields: tuple[str, ...], state: TrainState, experience: Experience) -> list[Any]:
    return [getattr(state, field) for field in fields] + [state.key, state.step, experience]


def _update(
    program: Callable[..., Any], fields: tuple[str, ...], state: TrainState, experience: Experience
) -> tuple[TrainState, Metrics, float]:
    out, seconds = timed(program, *_arguments(fields, state, experience))
    *after, metrics = out
    return state.replace(**dict(zip(fields, after, strict=True))), metrics, seconds


def step_program(inputs: Inputs, setting: Setting) -> Program:
    """A full step, phase by phase: sample, values, experience, critics, actor.

    "experience" is what AsyPPO adds: mean and σ of the values, advantages, ranks, masks, shards,
    and their metrics.
    """
    networks, config = inputs.networks, inputs.config

    def ensemble(critic_params, rollout):
        return ensemble_values(critic_params, rollout, networks, config)

    def experience_and_metrics(rollout, values, key):
        group = config.sampling.group_size
        experience = make_experience(
            rollout, values, key, group_size=group, config=config.algorithm
        )
        return experience, summarize(experience, group, config.algorithm)

    state, _, updates, updating = _updates(inputs)
    draw, (_, *rows), sampling = _sampler(inputs, setting, state.actor_params)
    value, valuing = compiled(ensemble, state.critic_params, inputs.rollout)
    values = jax.eval_shape(ensemble, state.critic_params, inputs.rollout)
    key = jax.random.key(1)
    process, processing = compiled(experience_and_metrics, inputs.rollout, values, key)
    box: dict[str, TrainState] = {"state": state}

    def run() -> Seconds:
        seconds: Seconds = {}
        state = box["state"]
        drawn, seconds["sample"] = timed(draw, state.actor_params, *rows, jax.random.key(0))
        rollout = drawn.replace(
            rewards=inputs.rollout.rewards, reward_valid=inputs.rollout.reward_valid
        )
        values, seconds["values"] = timed(value, state.critic_params, rollout)
        (experience, _), seconds["experience"] = timed(process, rollout, values, key)
        state, _, seconds["critics"] = updates["critics"](state, experience)
        state, _, seconds["actor"] = updates["actor"](state, experience)
        box["state"] = state
        return seconds

    seconds = {"sample": sampling, "values": valuing, "experience": processing, **updating}
    return Program(
        seconds, run, setting.real_tokens, lambda: {"slot_use": row_use(inputs, setting)}
    )


def row_use(inputs: Inputs, setting: Setting) -> float:
    """Real tokens as a share of all positions of the actor's update; shared prompts count once."""
    rollout, batching = inputs.rollout, inputs.config.batching
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    laid_out, num_rows, _ = lay_out(rows, batching, setting.group_size)
    size = rows_at_once(setting)
    computed = -(-int(num_rows) // size) * size
    (segments,) = jax.tree.leaves(laid_out.segments)
    return float(jnp.mean(segments[:computed] > 0))
