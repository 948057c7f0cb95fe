"""What a search may choose for a slice, without what cannot fit, and a formula of its seconds.

The formula is a lower bound: FLOPs and bytes of all phases. What the actor's update sends between
chips may be hidden behind its computations, so it only says which candidate comes first.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal, get_args

import jax

from asyppo_jax.algorithm.offload import FIELDS, OFFLOADED
from asyppo_jax.algorithm.state import state_shapes
from asyppo_jax.config import Config, ConfigError
from asyppo_jax.config.checks import check_config, check_divides_data_axis
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.planning.accelerators import slice_name
from asyppo_jax.planning.flops import layer_params, phase_costs, sizes_of, stored_width
from asyppo_jax.planning.plan import NETWORK_SHARE, compute_seconds, phases_to_compile
from asyppo_jax.planning.topology import Chip, chip_of, topology_devices

Remat = Literal["full", "attention", "attention_gate", "dots"]
_ROWS = (1, 2, 4, 8)
_SPARE = 0.1  # of the memory, for what a plan does not know


@dataclass(frozen=True, order=True)
class Candidate:
    """Settings that a search may choose; `rows` is the microbatch of one `data` shard."""

    model: int
    rows: int
    zero_stage: Literal[3, 2, 1]
    remat: Remat
    sampling_model: int
    critic_model: int
    logits_chunk: int = 128

    def __str__(self) -> str:
        return (
            f"model={self.model}, sampling_model={self.sampling_model}, "
            f"critic_model={self.critic_model}, {self.rows} rows per shard, "
            f"zero_stage={self.zero_stage}, remat={self.remat}, logits_chunk={self.logits_chunk}"
        )

    def changes(self, devices: int) -> dict[str, Any]:
        """The settings in a config, {"section.field": value}."""
        own = self.sampling_model, self.critic_model
        sampling_model, critic_model = (0 if size == self.model else size for size in own)
        return {
            "mesh.data": -1,
            "mesh.model": self.model,
            "mesh.sampling_model": sampling_model,
            "mesh.critic_model": critic_model,
            "mesh.zero_stage": self.zero_stage,
            "batching.microbatch_size": self.rows * (devices // self.model),
            "batching.critic_microbatch_size": self.rows * (devices // self.critic_model),
            "actor.remat": self.remat,
            "batching.logits_chunk": self.logits_chunk,
        }

    def model_of(self, phase: str) -> int:
        """The size of the `model` axis of a phase."""
        if phase in ("prefill", "decode"):
            return self.sampling_model
        return self.critic_model if phase in ("values", "critics") else self.model

    def phases(self, setting: "Setting") -> tuple[str, ...]:
        """The phases that count; with another mesh for sampling, the resharding is one of them."""
        resharded = self.sampling_model != self.model and "decode" in setting.phases
        return ("reshard", *setting.phases) if resharded else setting.phases

    def applied(self, config: Config, devices: int) -> Config:
        """The config with these settings."""
        for name, value in self.changes(devices).items():
            section, field = name.split(".")
            part = replace(getattr(config, section), **{field: value})
            config = replace(config, **{section: part})
        return config


@dataclass(frozen=True)
class Setting:
    """What is searched: a config on a slice, and the phases that count."""

    name: str
    config: Config
    topology: str
    devices: int
    phases: tuple[str, ...]
    networks: Mapping[str, Networks]  # by `remat` of the actor
    state_bytes: float  # of the state that is not offloaded, on all devices together

    @cached_property
    def digest(self) -> str:
        """What tells the config from others, without the settings that are searched."""
        plain = Candidate(1, 1, 3, "full", 1, 1).applied(self.config, self.devices)
        return hashlib.sha256(repr(plain).encode()).hexdigest()[:12]

    @property
    def chip(self) -> Chip:
        """The kind of chip of the slice."""
        return chip_of(self.topology)

    @property
    def usable_bytes(self) -> float:
        """The memory that a candidate may use per device."""
        return (1 - _SPARE) * self.chip.hbm_bytes


def setting_of(
    config: Config, topology: str, *, name: str, phases: Collection[str] = ()
) -> Setting:
    """What `search` needs; `phases` as in `plan`.

    Raises:
        PlanError, AcceleratorError: see `plan`.
    """
    topology = slice_name(topology)
    to_compile = phases_to_compile(config, phases, name)
    networks = {
        remat: load_networks(replace(config, actor=replace(config.actor, remat=remat)), "tpu")
        for remat in get_args(Remat)
    }
    shapes = state_shapes(config, networks["full"])
    fields = [field for field in FIELDS if field not in OFFLOADED[config.mesh.offload]]
    state = jax.tree.leaves([getattr(shapes, field) for field in fields])
    return Setting(
        name,
        config,
        topology,
        len(topology_devices(topology)),
        tuple(phase for phase in to_compile if phase != "reshard"),
        networks,
        float(sum(x.size * x.dtype.itemsize for x in state)),
    )


def candidates(setting: Setting) -> tuple[dict[Candidate, dict[str, float]], list[str]]:
    """The seconds of each phase by formula, and why the other candidates were left out."""
    possible, refused = {}, []
    errors: dict[Candidate, str] = {}
    for candidate in _combinations(setting):
        sizes = replace(candidate, zero_stage=3, remat="full")  # the others are never refused
        if sizes not in errors:
            errors[sizes] = _error(sizes, setting)
        if errors[sizes]:
            refused.append(f"{candidate}: {errors[sizes]}")
            continue
        needed = least_bytes(candidate, setting)
        if needed > setting.usable_bytes:
            refused.append(f"{candidate} needs at least {needed / 2**30:.1f} GiB per chip")
            continue
        possible[candidate] = least_seconds(candidate, setting)
    return possible, refused


def _error(candidate: Candidate, setting: Setting) -> str:
    """Why a candidate cannot be divided; empty if it can."""
    config = candidate.applied(setting.config, setting.devices)
    try:
        check_divides_data_axis(config, setting.devices)
        check_config(config)
    except ConfigError as error:
        return str(error)
    return ""


def _combinations(setting: Setting) -> Iterator[Candidate]:
    """Every candidate whose meshes divide the heads, and whose microbatch the minibatches.

    A mesh of a phase that does not count is that of the actor.
    """
    networks, sizes = setting.networks["full"], setting.config.batching
    of_actor = _models(networks.actor.config, setting)
    of_critics = _models(networks.critic.config, setting) if networks.critic else []
    of_sampling = of_actor if {"prefill", "decode"} & set(setting.phases) else []
    of_critics = of_critics if {"values", "critics"} & set(setting.phases) else []
    for model, rows, zero_stage, remat in product(of_actor, _ROWS, (3, 2, 1), get_args(Remat)):
        if sizes.actor_minibatch_size % (rows * setting.devices // model) == 0:
            chunk = _logits_chunk(rows, setting)
            for own in product(of_sampling or [model], of_critics or [model]):
                yield Candidate(model, rows, zero_stage, remat, *own, chunk)


def _logits_chunk(rows: int, setting: Setting) -> int:
    """The smallest power of two from which the head's gradient is not limited by the memory.

    Its sum in float32 is read and written for each chunk, 8 bytes for two FLOPs per token. At least
    the config's chunk, at most an answer's length.
    """
    tokens = 4 * setting.chip.flops / setting.chip.bandwidth
    largest = setting.config.sampling.max_completion_length
    chunk = 2 ** math.ceil(math.log2(max(tokens / rows, 1)))
    return min(max(chunk, setting.config.batching.logits_chunk), largest)


def _models(config: ModelConfig, setting: Setting) -> list[int]:
    """The sizes of `model` that divide the heads of a network and the devices."""
    heads = math.gcd(config.num_heads, config.num_kv_heads, setting.devices)
    return [size for size in range(1, heads + 1) if heads % size == 0]


def least_bytes(candidate: Candidate, setting: Setting) -> float:
    """Bytes that a device needs at least for the actor's update: state, gradients, residuals."""
    c, model = setting.networks[candidate.remat].actor.config, candidate.model
    params, data = float(c.num_params) / model, setting.devices // model
    tokens = candidate.rows * sizes_of(setting.config).length
    residuals = c.num_layers * tokens * stored_width(c, candidate.remat) * 2 / model
    gradients = 4 * params / (1 if candidate.zero_stage == 1 else data)
    gathered = 2 * params if candidate.zero_stage < 3 else 0.0
    # The head and the sum of its gradient are not sharded over `data`, whatever the stage.
    head = c.vocab_size * c.embed_dim / model
    gathered += 2 * head if candidate.zero_stage == 3 else 0.0
    gradients += 4 * head if candidate.zero_stage > 1 else 0.0
    residuals += 4 * candidate.rows * candidate.logits_chunk * c.vocab_size / model  # the logits
    return setting.state_bytes / setting.devices + residuals + gradients + gathered


def least_seconds(candidate: Candidate, setting: Setting) -> dict[str, float]:
    """Seconds per step by formula: FLOPs and bytes of each phase, if all collectives are hidden."""
    config = candidate.applied(setting.config, setting.devices)
    costs, seconds = {}, {}
    for phase in candidate.phases(setting):
        data = setting.devices // candidate.model_of(phase)
        if data not in costs:
            costs[data] = phase_costs(config, setting.networks[candidate.remat], data)
        seconds[phase] = compute_seconds(costs[data][phase], setting.chip, setting.devices)
    return seconds


def network_seconds(candidate: Candidate, setting: Setting) -> float:
    """The least time of the collectives of the actor's gradients, hidden or not.

    They are all-gathers and reductions of parameters over `data`, and of activations over `model`.
    """
    config, c = setting.config, setting.networks[candidate.remat].actor.config
    sizes, model, data = sizes_of(config), candidate.model, setting.devices // candidate.model
    sequences = config.algorithm.actor_epochs * sizes.batch
    microbatches = sequences / (candidate.rows * data)
    minibatches = sequences / config.batching.actor_minibatch_size
    stage = candidate.zero_stage
    params = 2 * (layer_params(c) + c.vocab_size * c.embed_dim) * (data - 1) / data / model
    gathers = 2 * microbatches if stage == 3 else minibatches
    reductions = microbatches if stage > 1 else 2 * minibatches  # in bfloat16 or float32
    activations = 2 * candidate.rows * sizes.length * c.embed_dim * (model - 1) / model
    # Attention and MLP each gather their input and scatter their output, forward and backward.
    sent = params * (gathers + reductions) + microbatches * c.num_layers * 8 * activations
    return sent / (setting.chip.network * NETWORK_SHARE)
