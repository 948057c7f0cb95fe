"""The phases of a step as compiled programs that can be run and timed repeatedly."""

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
from asyppo_jax.algorithm.experience import summarize
from asyppo_jax.algorithm.state import state_shardings
from asyppo_jax.algorithm.train_step import critic_values, experience_of, step_actor, step_critics
from asyppo_jax.runtime.sharding import batch_sharding, make_mesh
from asyppo_jax.sampling import sample
from asyppo_jax.sampling.sampler import training_options
from asyppo_jax.types import Params, TrainState
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
    """A compiled program to be timed."""

    compile_seconds: Seconds
    run: Callable[[], Seconds]
    tokens: int  # real tokens that a run samples or trains on
    notes: Callable[[], dict[str, float]]  # more results; called after the runs


def compiled(function: Callable[..., Any], *arguments: Any, **options: Any):
    """The compiled program for these arguments, and the seconds for tracing and compiling it."""
    start = time.perf_counter()
    program = jax.jit(function, **options).lower(*arguments).compile()
    return program, time.perf_counter() - start


def timed(program: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    out = jax.block_until_ready(program(*arguments))
    return out, time.perf_counter() - start


def sampling_program(inputs: Inputs, setting: Setting) -> Program:
    """Prefill and decoding of all rows, each up to its own length."""
    program, arguments, seconds = _sampler(inputs, setting, actor_params(inputs))
    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def run() -> Seconds:
        rollout, elapsed = timed(program, *arguments, next(keys))
        lengths = np.asarray(jnp.sum(rollout.completion_mask, axis=1))
        assert tuple(lengths) == setting.lengths, f"the sampler gave completions of {lengths}"
        return {"sample": elapsed}

    return Program({"sample": seconds}, run, sum(setting.lengths), dict)


def _sampler(inputs: Inputs, setting: Setting, params: Params):
    """The sampling program, its arguments except the key, and its compile seconds."""
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
    """The critics' update, then the actor's; each computes one gradient over all rows."""
    state, experience, (critics, actor), seconds = _updates(inputs)
    states, metrics = [state], []

    def run() -> Seconds:
        (state, critic_metrics), critics_seconds = timed(critics, states.pop(), experience)
        (state, actor_metrics), actor_seconds = timed(actor, state, experience)
        states.append(state)
        metrics.append(critic_metrics | actor_metrics)
        return {"critics": critics_seconds, "actor": actor_seconds}

    def notes() -> dict[str, float]:
        # The losses of the first run, because a peer starts from the same weights.
        losses = {f"{name}_loss": float(metrics[0][f"{name}/loss"]) for name in ("actor", "critic")}
        return losses | {"slot_use": row_use(inputs, setting)}

    return Program(seconds, run, setting.real_tokens, notes)


def _updates(inputs: Inputs):
    """State and experience on their devices, both update programs, and their compile seconds."""
    mesh = make_mesh(inputs.config.mesh)
    shardings = state_shardings(inputs.config, inputs.networks, mesh)
    state = jax.device_put(first_state(inputs), shardings)
    rollout = jax.device_put(inputs.rollout, batch_sharding(mesh))
    programs, seconds = [], {}
    with jax.set_mesh(mesh):
        experience = drawn_experience(inputs._replace(rollout=rollout))
        for name, step in (("critics", step_critics), ("actor", step_actor)):
            update = partial(step, networks=inputs.networks, config=inputs.config)
            options = {"donate_argnums": (0,), "out_shardings": (shardings, None)}
            program, seconds[name] = compiled(update, state, experience, **options)
            programs.append(program)
    return state, experience, programs, seconds


def step_program(inputs: Inputs, setting: Setting) -> Program:
    """A full step, timed phase by phase: sample, values, experience, critics, actor.

    "experience" includes everything that is specific to AsyPPO: mean and σ, advantages, ranks,
    masks, critic shards, and their metrics.
    """
    options = {"networks": inputs.networks, "config": inputs.config}

    def experience_and_summary(state, rollout, values):
        experience = experience_of(state, rollout, values, inputs.config)
        return experience, summarize(experience)

    compile_seconds: Seconds = {}
    state, _, (critics, actor), update_seconds = _updates(inputs)
    draw, (_, *rows), compile_seconds["sample"] = _sampler(inputs, setting, state.actor_params)
    compute_values = partial(critic_values, **options)
    value, compile_seconds["values"] = compiled(compute_values, state, inputs.rollout)
    values = jax.eval_shape(compute_values, state, inputs.rollout)
    make_experience, compile_seconds["experience"] = compiled(
        experience_and_summary, state, inputs.rollout, values
    )
    compile_seconds |= update_seconds
    latest: dict[str, TrainState] = {"state": state}

    def run() -> Seconds:
        seconds: Seconds = {}
        state = latest["state"]
        sampled, seconds["sample"] = timed(draw, state.actor_params, *rows, jax.random.key(0))
        rollout = sampled.replace(
            rewards=inputs.rollout.rewards, reward_valid=inputs.rollout.reward_valid
        )
        values, seconds["values"] = timed(value, state, rollout)
        (experience, _), seconds["experience"] = timed(make_experience, state, rollout, values)
        (state, _), seconds["critics"] = timed(critics, state, experience)
        (state, _), seconds["actor"] = timed(actor, state, experience)
        latest["state"] = state
        return seconds

    notes = lambda: {"slot_use": row_use(inputs, setting)}  # noqa: E731
    return Program(compile_seconds, run, setting.real_tokens, notes)


def row_use(inputs: Inputs, setting: Setting) -> float:
    """The share of real tokens among all positions that the actor's update computes.

    A shared prompt counts once.
    """
    rollout, batching = inputs.rollout, inputs.config.batching
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    packed, num_used, _ = lay_out(rows, batching, setting.group_size)
    size = rows_at_once(setting)
    num_computed = -(-int(num_used) // size) * size
    (segments,) = jax.tree.leaves(packed.segments)
    return float(jnp.mean(segments[:num_computed] > 0))
