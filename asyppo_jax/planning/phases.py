"""The phases of a step as separate programs, from shapes alone: what `plan` compiles.

Each takes only the fields of the `TrainState` that it reads; the others are `resident` on the
chips, or `offloaded` to the host where `config.mesh.offload` says so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from asyppo_jax.algorithm.offload import FIELDS, OFFLOADED, programs
from asyppo_jax.algorithm.state import state_shapes, state_shardings
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks, actor_shapes, in_compute_dtype
from asyppo_jax.models.attention.decode_attention import PAGES
from asyppo_jax.models.attention.decode_kernels import PAGE, positions_read_at_once
from asyppo_jax.planning.flops import sizes_of
from asyppo_jax.runtime.phase_meshes import batch_shardings, critics_mesh, sampling_mesh
from asyppo_jax.runtime.sharding import (
    batch_sharding,
    map_data_shards,
    param_shardings,
    placed,
    replicated,
)
from asyppo_jax.sampling import decoding_params, prefill, sample
from asyppo_jax.sampling.sampler import training_options
from asyppo_jax.types import Params, PromptBatch, Rollout, TrainState

AFTER_SAMPLING = ("values", "critics", "reference", "actor")
# The phases of a step in the order in which they run; "reshard" sends the actor's parameters to the
# sampling mesh, "step" is those after sampling in one.
PHASES = ("reshard", "prefill", "decode", *AFTER_SAMPLING, "step")


def phases_of(config: Config) -> tuple[str, ...]:
    """The phases of `PHASES` that a run has.

    A run without critics has no "values" and "critics", one without KL has no "reference". A run
    with `config.mesh.offload` or a mesh of the critics has no "step". Only a run with a mesh of
    sampling has "reshard".
    """
    missing = set() if config.algorithm.num_critics else {"values", "critics"}
    missing |= set() if config.algorithm.kl_coef else {"reference"}
    missing |= set() if config.mesh.is_one_program else {"step"}
    missing |= set() if config.mesh.has_own("sampling_model") else {"reshard"}
    return tuple(phase for phase in PHASES if phase not in missing)


def mesh_of(phase: str, config: Config, mesh: Mesh) -> Mesh:
    """The mesh of a phase; `mesh` is that of the actor."""
    if phase in ("prefill", "decode"):
        return sampling_mesh(config.mesh, mesh)
    return critics_mesh(config.mesh, mesh) if phase in ("values", "critics") else mesh


@dataclass(frozen=True)
class PhaseProgram:
    """What a phase runs, ready to be lowered."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]  # shapes with shardings
    # Fields of the state, and the reference, that are no argument: on the chips, in host memory.
    resident: tuple[Any, ...] = ()
    offloaded: tuple[Any, ...] = ()
    runs: int = 1  # per step
    trips: Mapping[str, float] = field(default_factory=dict)  # see `hlo.read_program`
    kernels: Mapping[str, float] | None = None  # see `hlo_traffic.moved_bytes`; None: not counted
    jit: dict[str, Any] = field(default_factory=dict)


def phase_programs(
    config: Config, networks: Networks, mesh: Mesh
) -> tuple[dict[str, PhaseProgram], TrainState]:
    """The programs of `phases_of(config)`, and the shapes of the run's state.

    "step" is what runs if `config.mesh.is_one_program`, else the phases run.
    """
    shapes, shardings = state_shapes(config, networks), state_shardings(config, networks, mesh)
    state, of_critics = placed(shapes, shardings), critics_mesh(config.mesh, mesh)
    rollout, clock = rollout_shapes(config, mesh), (state.key, state.step)
    on_critics = (*_replicated(clock, of_critics), rollout_shapes(config, of_critics))
    after_sampling = programs(networks, config, mesh)
    with jax.set_mesh(of_critics):
        values = after_sampling["values"].function
        experience, _ = jax.eval_shape(values, state.critic_params, *on_critics)
    reference = _reference_params(config, networks, state)
    of_actor = placed(experience, batch_shardings(experience, mesh))
    scored = of_actor.replace(reference_log_probs=rollout.log_probs if reference else None)
    inputs = {
        "values": on_critics,
        "critics": (*on_critics[:2], placed(experience, batch_shardings(experience, of_critics))),
        "reference": (*reference, of_actor),
        "actor": (*clock, scored),
    }
    trips = _packed_trips(config)
    phases = _sampling_programs(config, networks, mesh, state, reference)
    for name, more in inputs.items():
        if name in phases_of(config):
            program = after_sampling[name]
            arguments = tuple(getattr(state, field) for field in program.fields)
            idle_reference = () if name == "reference" else reference
            phases[name] = PhaseProgram(
                program.function,
                (*arguments, *more),
                *_idle(config, state, program.fields, idle_reference),
                jit=program.jit,
                trips=trips[name],
            )
    if config.mesh.is_one_program:
        step = after_sampling["step"]
        # Both updates name their loop over microbatches alike; the actor's is the longer one.
        phases["step"] = PhaseProgram(
            step.function, (state, rollout, *reference), jit=step.jit, trips=trips["actor"]
        )
    return phases, state


def _replicated(tree: Any, mesh: Mesh) -> Any:
    return placed(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def _reference_params(config: Config, networks: Networks, state: TrainState) -> tuple[Params, ...]:
    """The shapes of the reference's parameters, on the chips; nothing if the run has none."""
    if not config.algorithm.kl_coef:
        return ()
    actor = state.actor_params
    shapes = jax.eval_shape(lambda params: in_compute_dtype(params, networks.actor.dtype), actor)
    return (placed(shapes, jax.tree.map(lambda x: x.sharding, actor)),)


def _idle(
    config: Config, state: TrainState, needed: tuple[str, ...], reference: tuple[Params, ...]
) -> tuple[Any, Any]:
    """What a phase does not read of the state, and the reference: (on the chips, on the host)."""
    on_host = OFFLOADED[config.mesh.offload]
    idle = [field for field in FIELDS if field not in needed]
    resident = tuple(getattr(state, field) for field in idle if field not in on_host)
    offloaded = tuple(getattr(state, field) for field in idle if field in on_host)
    if config.mesh.offload == "idle":
        return resident, (*offloaded, *reference)
    return (*resident, *reference), offloaded


def _sampling_programs(
    config: Config,
    networks: Networks,
    mesh: Mesh,
    state: TrainState,
    reference: tuple[Params, ...],
) -> dict[str, PhaseProgram]:
    sizes, chunks, of_actor = sizes_of(config), config.sampling.chunks, mesh
    mesh = sampling_mesh(config.mesh, of_actor)
    options = training_options(config, stop_ids=(0,), pad_id=0)
    row, num_prompts, batch = (
        batch_sharding(mesh),
        sizes.num_prompts // chunks,
        sizes.batch // chunks,
    )
    prompts = PromptBatch(
        tokens=_shape((num_prompts, sizes.prompt), jnp.int32, row),
        mask=_shape((num_prompts, sizes.prompt), bool, row),
    )

    def first(actor_params, prompts):
        def by_row(params, prompts):
            lengths, logits, kv = prefill(params, prompts, networks)
            return lengths, logits, jax.tree.map(lambda x: x.swapaxes(0, 1), kv)

        run = map_data_shards(by_row, num_prompts)
        return run(decoding_params(actor_params, networks), prompts)

    def loop(actor_params, prompts, key_data):
        key = jax.random.wrap_key_data(key_data)
        return sample(actor_params, prompts, key, networks=networks, options=options)

    resident, offloaded = _idle(config, state, ("actor_params",), reference)
    params, key, phases = state.actor_params, state.key, {}
    if mesh != of_actor:
        shardings = param_shardings(actor_shapes(networks.actor), mesh)
        phases["reshard"] = PhaseProgram(
            partial(in_compute_dtype, dtype=networks.actor.dtype),
            (params,),
            resident,
            offloaded,
            jit={"out_shardings": shardings},
        )
        resident = (*resident, params)
        params = placed(jax.eval_shape(phases["reshard"].function, params), shardings)
        key = _replicated(key, mesh)
    iterations = sizes.completion * batch / sizes.slots
    # In the worst case every answer has the greatest length, and all slots are in use to the end.
    trips = {"decode": iterations, "decode_tail": 0.0, "refill": batch / iterations}
    program = partial(
        PhaseProgram, resident=resident, offloaded=offloaded, trips=trips, runs=chunks
    )
    kernels = _decode_kernels(config, networks, mesh)
    return phases | {
        "prefill": program(first, (params, prompts)),
        "decode": program(loop, (params, prompts, key), kernels=kernels),
    }


def _decode_kernels(config: Config, networks: Networks, mesh: Mesh) -> dict[str, float]:
    """Bytes of the cache that one call of the paged kernel reads on a chip, in the middle of a
    rollout of the longest answers: each row's keys and values, rounded up to the kernel's block.
    """
    sizes, actor = sizes_of(config), networks.actor
    if actor.decode != PAGES:
        return {}
    positions = -(-sizes.length // PAGE) * PAGE
    read = sizes.prompt + sizes.completion / 2 + positions_read_at_once(positions) / 2
    heads = actor.config.num_kv_heads
    heads = heads // mesh.shape["model"] if heads % mesh.shape["model"] == 0 else heads
    width = 2 * heads * actor.config.head_dim * jnp.dtype(actor.dtype).itemsize
    return {"paged_attention": sizes.slots / mesh.shape["data"] * min(read, positions) * width}


def _packed_trips(config: Config) -> dict[str, dict[str, float]]:
    """Iterations of the loops over packed rows if all completions have the greatest length."""
    batching, sizes = config.batching, sizes_of(config)
    chunks = -(-sizes.completion // batching.logits_chunk)
    forward = {"forward_microbatches": sizes.batch / batching.microbatch_size}
    critic = config.critic_sizes if config.algorithm.num_critics else None
    of_actor = batching.actor_minibatch_size / batching.microbatch_size
    return {
        "values": forward,
        "critics": {"microbatches": critic.minibatch / critic.microbatch} if critic else {},
        "reference": forward | {"logits_chunks": chunks},
        "actor": forward | {"microbatches": of_actor, "logits_chunks": chunks},
    }


def rollout_shapes(config: Config, mesh: Mesh) -> Rollout:
    """The shapes of a scored rollout, rows over `data`."""
    sizes, row = sizes_of(config), batch_sharding(mesh)

    def shape(*dims: int, dtype: Any) -> Any:
        return _shape((sizes.batch, *dims), dtype, row)

    by_entropy = config.algorithm.mask_by == "entropy"
    entropy = shape(sizes.completion, dtype=jnp.float32) if by_entropy else None
    critic_prompts = {}
    if sizes.reference:
        length = sizes.reference + sizes.prompt
        critic_prompts["critic_prompt"] = shape(length, dtype=jnp.int32)
        critic_prompts["critic_prompt_mask"] = shape(length, dtype=bool)
    return Rollout(
        tokens=shape(sizes.length, dtype=jnp.int32),
        prompt_mask=shape(sizes.prompt, dtype=bool),
        completion_mask=shape(sizes.completion, dtype=bool),
        log_probs=shape(sizes.completion, dtype=jnp.float32),
        rewards=shape(dtype=jnp.float32),
        reward_valid=shape(dtype=bool),
        truncated=shape(dtype=bool),
        entropy=entropy,
        **critic_prompts,
    )


def _shape(dims: tuple[int, ...], dtype: Any, sharding: jax.NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)


def bytes_per_chip(tree: Any) -> float:
    """Bytes of a pytree of shapes on one chip, by its shardings."""

    def one(x) -> int:
        shape = x.sharding.shard_shape(x.shape)
        return math.prod(shape) * x.dtype.itemsize

    return float(sum(one(x) for x in jax.tree.leaves(tree)))
