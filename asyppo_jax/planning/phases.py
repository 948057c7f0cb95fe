"""The phases of a step as separate programs, from shapes alone: what `plan` compiles.

Each takes only the part of the `TrainState` that it needs; the rest is `held` on the chips, or
`offloaded` to the host where `config.mesh.offload` says so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from asyppo_jax.algorithm.offload import WAITING, phase_functions
from asyppo_jax.algorithm.state import state_shapes, state_shardings
from asyppo_jax.algorithm.train_step import train_step
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.models.attention.decode_kernels import PAGE, places_read_together
from asyppo_jax.planning.flops import sizes_of
from asyppo_jax.runtime.sharding import batch_sharding, by_data_shard, placed, replicated
from asyppo_jax.sampling import decoding_params, prefill, sample
from asyppo_jax.sampling.sampler import training_options
from asyppo_jax.types import PromptBatch, Rollout, TrainState


@dataclass(frozen=True)
class PhaseProgram:
    """What a phase runs, ready to be lowered."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]  # shapes with shardings
    held: tuple[Any, ...] = ()  # parts of the state that are no argument, on the chips
    offloaded: tuple[Any, ...] = ()  # and on the host
    runs: int = 1  # a step
    trips: Mapping[str, float] = field(default_factory=dict)  # see `hlo.read_program`
    kernels: Mapping[str, float] | None = None  # see `hlo_traffic.moved_bytes`; None: not counted
    jit: dict[str, Any] = field(default_factory=dict)


def phase_programs(
    config: Config, networks: Networks, mesh: Mesh
) -> tuple[dict[str, PhaseProgram], TrainState]:
    """The phases of a step in the order in which they run, and the shapes of the state.

    Last comes "step", `train_step` itself: values, critics and actor in one program, which is what
    runs without `config.mesh.offload`.
    """
    shardings = state_shardings(config, networks, mesh)
    shapes = state_shapes(config, networks)
    state = placed(shapes, shardings)
    programs = _sampling_programs(config, networks, mesh, state)
    rollout = rollout_shapes(config, mesh)
    critics = state.critic_params, state.critic_opt_state
    actor = state.actor_params, state.actor_opt_state

    run = phase_functions(networks, config)
    with jax.set_mesh(mesh):
        compiled, _ = jax.eval_shape(
            run.values, state.critic_params, state.key, state.step, rollout
        )
    experience = placed(compiled, _experience_shardings(compiled, config, mesh))
    rest, trips = (state.key, state.step), _packed_trips(config)
    if networks.critic is not None:
        programs["values"] = PhaseProgram(
            run.values,
            (state.critic_params, *rest, rollout),
            *_waiting(config, state, "actor_params", "actor_opt_state", "critic_opt_state"),
            trips=trips["values"],
        )
        out = shardings.critic_params, shardings.critic_opt_state, replicated(mesh)
        programs["critics"] = PhaseProgram(
            run.critics,
            (*critics, *rest, experience),
            *_waiting(config, state, "actor_params", "actor_opt_state"),
            jit={"donate_argnums": (0, 1), "out_shardings": out},
            trips=trips["critics"],
        )
    out = shardings.actor_params, shardings.actor_opt_state, replicated(mesh)
    programs["actor"] = PhaseProgram(
        run.actor,
        (*actor, *rest, experience),
        *_waiting(config, state, "critic_params", "critic_opt_state"),
        jit={"donate_argnums": (0, 1), "out_shardings": out},
        trips=trips["actor"],
    )
    if config.mesh.offload == "none":
        programs["step"] = PhaseProgram(
            partial(train_step, networks=networks, config=config),
            (state, rollout),
            jit={"donate_argnums": 0, "out_shardings": (shardings, replicated(mesh))},
            # The critics' loop over microbatches is named as the actor's, and is the shorter one.
            trips=trips["actor"],
        )
    return programs, state


def _waiting(config: Config, state: TrainState, *idle: str) -> tuple[Any, Any]:
    """The parts of the state that are idle in a phase, as (on the chips, on the host)."""
    hosted = WAITING[config.mesh.offload]
    near, far = (
        tuple(getattr(state, name) for name in idle if (name in hosted) is on_host)
        for on_host in (False, True)
    )
    return near, far


def _sampling_programs(
    config: Config, networks: Networks, mesh: Mesh, state: TrainState
) -> dict[str, PhaseProgram]:
    sizes, parts = sizes_of(config), config.sampling.parts
    options = training_options(config, stop_ids=(0,), pad_id=0)
    row, num_prompts, batch = batch_sharding(mesh), sizes.num_prompts // parts, sizes.batch // parts
    prompts = PromptBatch(
        tokens=_shape((num_prompts, sizes.prompt), jnp.int32, row),
        mask=_shape((num_prompts, sizes.prompt), bool, row),
    )

    def first(actor_params, prompts):
        def by_row(params, prompts):
            lengths, logits, kept = prefill(params, prompts, networks)
            return lengths, logits, jax.tree.map(lambda x: x.swapaxes(0, 1), kept)

        run = by_data_shard(by_row, num_prompts)
        return run(decoding_params(actor_params, networks), prompts)

    def loop(actor_params, prompts, key_data):
        key = jax.random.wrap_key_data(key_data)
        return sample(actor_params, prompts, key, networks=networks, options=options)

    idle = "critic_params", "actor_opt_state", "critic_opt_state"
    held, offloaded = _waiting(config, state, *idle)
    turns = sizes.completion * batch / sizes.slots
    # At the worst every answer is as long as may be: then all slots are live to the end.
    trips = {"decode": turns, "decode_tail": 0.0, "refill": batch / turns}
    program = partial(PhaseProgram, held=held, offloaded=offloaded, trips=trips, runs=parts)
    return {
        "prefill": program(first, (state.actor_params, prompts)),
        "decode": program(
            loop,
            (state.actor_params, prompts, state.key),
            kernels=_decode_kernels(config, networks, mesh),
        ),
    }


def _decode_kernels(config: Config, networks: Networks, mesh: Mesh) -> dict[str, float]:
    """Bytes of the cache that one call of the paged kernel reads on a chip, halfway at the worst:
    every row's keys and values so far, up to the end of its block.
    """
    sizes, actor = sizes_of(config), networks.actor
    if actor.decode != "pages":
        return {}
    places = -(-sizes.length // PAGE) * PAGE
    read = sizes.prompt + sizes.completion / 2 + places_read_together(places) / 2
    heads = actor.config.num_kv_heads
    heads = heads // mesh.shape["model"] if heads % mesh.shape["model"] == 0 else heads
    width = 2 * heads * actor.config.head_dim * jnp.dtype(actor.dtype).itemsize
    return {"paged_attention": sizes.slots / mesh.shape["data"] * min(read, places) * width}


def _packed_trips(config: Config) -> dict[str, dict[str, float]]:
    """Trips of the loops over packed rows at the worst: every completion at its limit."""
    batching, sizes = config.batching, sizes_of(config)
    critics = max(1, config.algorithm.num_critics)
    chunks = -(-sizes.completion // batching.logits_chunk)
    forward = {"forward_microbatches": sizes.batch / batching.microbatch_size}
    of_critic = batching.critic_minibatch_size / critics / batching.critic_microbatch(critics)
    of_actor = batching.actor_minibatch_size / batching.microbatch_size
    return {
        "values": forward,
        "critics": {"microbatches": of_critic},
        "actor": forward | {"microbatches": of_actor, "logits_chunks": chunks},
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
