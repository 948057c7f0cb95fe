"""Memory, FLOPs and time of a run's phases, compiled for a TPU slice without having that slice.

The TPU compiler is a library (`libtpu`). Without a chip, it reports how much memory of a chip each
program needs, or that it does not fit. The phases are the parts of `sample` and `train_step`.
Between phases the full `TrainState` stays on the chips and everything else is freed.
"""

import re
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
from jax.sharding import Mesh

from asyppo_jax.algorithm.state import state_shapes, state_shardings
from asyppo_jax.config import Config, ConfigError
from asyppo_jax.config.checks import check_divides_data_axis
from asyppo_jax.models.actor_critic import Networks, check_mesh_divides_heads
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.planning.accelerators import slice_name
from asyppo_jax.planning.collectives import collectives
from asyppo_jax.planning.early_checks import check_state_fits, replicated_axes
from asyppo_jax.planning.flops import Cost, phase_costs
from asyppo_jax.planning.hlo import read_program
from asyppo_jax.planning.hlo_traffic import moved_bytes
from asyppo_jax.planning.overlap import schedule_of, torus_of
from asyppo_jax.planning.phases import (
    AFTER_SAMPLING,
    PHASES,
    PhaseProgram,
    bytes_per_chip,
    mesh_of,
    phase_programs,
    phases_of,
)
from asyppo_jax.planning.topology import Chip, PlanError, chip_of, num_chips, topology_devices
from asyppo_jax.runtime.sharding import make_mesh, placed

# Fractions of the peak rates that the time estimate assumes.
FLOPS_SHARE, BANDWIDTH_SHARE, NETWORK_SHARE = 0.5, 0.8, 0.5


@dataclass
class PhasePlan:
    """One phase: memory per chip, and FLOPs and moved bytes of the full slice."""

    fits: bool
    peak_bytes: float  # arguments, results and temporaries of the program, plus `resident_bytes`
    argument_bytes: float
    temp_bytes: float
    resident_bytes: float  # state or reference on the chip that is no argument of this program
    host_bytes: float  # state or reference that is offloaded to the memory of the host
    flops: float  # per step, by formula
    moved_bytes: float  # per step, by formula: the least possible
    seconds: float  # per step, estimated: of computations, and what the chip waits for collectives
    compile_seconds: float
    network_seconds: float = 0.0  # per step, of all collectives, hidden or not
    waiting_seconds: float = 0.0  # per step, those in which the chip waits for them
    # Per step, by the compiler's cycles, with waits, without kernels; 0 if it estimates nothing.
    scheduled_seconds: float = 0.0
    collectives: dict[str, dict[str, float]] = field(default_factory=dict)
    # Decode only: bytes moved by the compiled program, summed over the slice. In `moved_bytes`, its
    # lower bound, each decoding step reads all weights once per `data` shard, and each KV cache.
    compiled_bytes: float = 0.0


@dataclass
class Plan:
    """The plan of a config on a slice."""

    config: str
    topology: str
    chips: int
    hbm_bytes: float  # of a device that a program may use; see `topology.Chip`
    state_bytes: float  # of the full TrainState, per chip
    peak_bytes: float  # of the largest compiled phase, per chip
    phases: dict[str, PhasePlan]  # those that were compiled
    not_compiled: tuple[str, ...] = ()  # the other phases of the run
    num_steps: int = 0  # of the run
    devices: int = 0  # of the slice, as many as chips or twice as many; "per chip" is per device
    # None: all compiled phases fit, but one that was not compiled may not.
    fits: bool | None = field(init=False)

    def __post_init__(self) -> None:
        fits = all(phase.fits for phase in self.phases.values())
        self.fits = None if fits and self.not_compiled else fits

    def as_dict(self) -> dict[str, Any]:
        """The plan as nested dicts, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Preparation:
    """A config and a slice that passed every check that needs no compilation."""

    name: str
    topology: str
    config: Config
    mesh: Mesh
    networks: Networks
    warnings: tuple[str, ...]  # what is allowed but costs memory
    phases: tuple[str, ...]  # to be compiled
    not_compiled: tuple[str, ...]


def prepare(
    config: Config, topology: str, *, name: str, phases: Collection[str] = ()
) -> Preparation:
    """What `compile_plan` needs, after all checks that take no compilation; see `plan`."""
    topology = slice_name(topology)
    to_compile, of_run = phases_to_compile(config, phases, name), phases_of(config)
    compiled = {*to_compile, *(AFTER_SAMPLING if "step" in to_compile else ())}
    rest = tuple(phase for phase in of_run if phase not in (*compiled, "step"))
    devices = topology_devices(topology)
    try:
        mesh = make_mesh(config.mesh, devices)
        check_divides_data_axis(config, mesh.size)
    except ConfigError as error:
        raise ConfigError(f"{name} on {topology}: {error}") from error
    networks = load_networks(config, "tpu")
    try:
        check_mesh_divides_heads(networks, config.mesh)
        check_state_fits(config, networks, mesh, chip_of(topology))
    except ConfigError as error:
        raise type(error)(f"{name} on {topology}: {error}") from error
    warnings = tuple(replicated_axes(networks, config.mesh))
    return Preparation(name, topology, config, mesh, networks, warnings, to_compile, rest)


def phases_to_compile(config: Config, phases: Collection[str], name: str) -> tuple[str, ...]:
    """The phases of the run that are in `phases`; if it is empty, all but "step"."""
    unknown = sorted(set(phases) - set(PHASES))
    if unknown:
        raise PlanError(f"{unknown[0]!r} is not a phase; choose from {', '.join(PHASES)}")
    of_run = phases_of(config)
    to_compile = tuple(phase for phase in of_run if phase in (phases or PHASES[:-1]))
    if not to_compile:
        raise PlanError(
            f"{name} has none of the phases {', '.join(phases)}; it has {', '.join(of_run)}"
        )
    return to_compile


def compile_plan(
    prepared: Preparation,
    report: Callable[[str], None] = print,
    finished: dict[str, PhasePlan] | None = None,
) -> Plan:
    """The plan, after compiling the phases; `report` gets a line of text before each of them.

    Each phase is put into `finished` when it is compiled, for a caller that is interrupted.
    """
    config, mesh, count = prepared.config, prepared.mesh, len(prepared.phases)
    chip = chip_of(prepared.topology)
    programs, _ = phase_programs(config, prepared.networks, mesh)
    plans, last = {} if finished is None else finished, ""
    for number, phase in enumerate(prepared.phases, start=1):
        report(
            f"{prepared.name} on {prepared.topology}, phase {number} of {count}: "
            f"compiling {phase}{last}"
        )
        of_phase = mesh_of(phase, config, mesh)
        cost = phase_costs(config, prepared.networks, of_phase.shape["data"])[phase]
        plans[phase] = _plan_phase(programs[phase], cost, chip, of_phase)
        last = f" (the last took {plans[phase].compile_seconds:.0f} s)"
    return plan_of(prepared, plans)


def plan_of(prepared: Preparation, plans: dict[str, PhasePlan]) -> Plan:
    """The plan of the phases that were compiled."""
    config, networks, mesh = prepared.config, prepared.networks, prepared.mesh
    state = placed(state_shapes(config, networks), state_shardings(config, networks, mesh))
    missing = {*prepared.not_compiled, *prepared.phases} - {*plans}
    return Plan(
        prepared.name,
        prepared.topology,
        num_chips(prepared.topology),
        chip_of(prepared.topology).hbm_bytes,
        bytes_per_chip(state),
        max(p.peak_bytes for p in plans.values()),
        plans,
        tuple(phase for phase in PHASES if phase in missing),
        config.num_steps,
        mesh.size,
    )


def plan(
    config: Config,
    topology: str,
    *,
    name: str,
    phases: Collection[str] = (),
    report: Callable[[str], None] = print,
) -> Plan:
    """The plan of `config` for a slice, after compiling its phases.

    `report` is called with a line of text before each compilation. `phases` is a subset of
    `PHASES`; if empty, all but "step", which is the phases after sampling in one program.

    Raises:
        PlanError: a phase is unknown, or the run has none of them; or see `topology_devices`.
        AcceleratorError: the slice is named by a type, such as v5p-32, that does not exist.
        ConfigError: the mesh does not fit the slice, a batch cannot be divided over it, or the
            state alone is larger than its memory.
    """
    return compile_plan(prepare(config, topology, name=name, phases=phases), report)


def _plan_phase(program: PhaseProgram, cost: Cost, chip: Chip, mesh: Mesh) -> PhasePlan:
    started = time.perf_counter()
    resident_bytes = bytes_per_chip(program.resident)
    traffic, compiled_bytes, schedule = {}, 0.0, None
    with jax.set_mesh(mesh):
        lowered = jax.jit(program.function, **program.jit).lower(*program.arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        fits, used = False, _used_when_out_of_memory(str(error))
        arguments = bytes_per_chip(program.arguments)
        temporaries, peak = max(used - arguments, 0.0), used + resident_bytes
    else:
        memory: Any = compiled.memory_analysis()
        arguments = float(memory.argument_size_in_bytes)
        # Not `temp_size_in_bytes`: for loops inside a branch it sums more than is live at a time.
        temporaries = memory.peak_memory_in_bytes - arguments
        peak = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes + resident_bytes
        fits = peak <= chip.hbm_bytes
        parsed = read_program(compiled.as_text() or "", unknown_trips=program.trips)
        traffic = {
            kind: {"count": t.count * program.runs, "bytes": t.bytes * program.runs}
            for kind, t in collectives(parsed).items()
        }
        torus = torus_of(list(mesh.devices.flat), chip.network * NETWORK_SHARE, chip.dimensions)
        schedule = schedule_of(parsed, chip.clock, torus)
        if program.kernels is not None:
            compiled_bytes = moved_bytes(parsed, program.kernels) * program.runs * mesh.size
    network = sum(t["bytes"] for t in traffic.values()) / (chip.network * NETWORK_SHARE)
    waiting = schedule.waiting_seconds * program.runs if schedule else network
    return PhasePlan(
        fits=fits,
        peak_bytes=peak,
        argument_bytes=arguments,
        temp_bytes=temporaries,
        resident_bytes=resident_bytes,
        host_bytes=bytes_per_chip(program.offloaded),
        flops=cost.flops,
        moved_bytes=cost.bytes,
        seconds=compute_seconds(cost, chip, mesh.size) + waiting,
        compile_seconds=time.perf_counter() - started,
        network_seconds=network,
        waiting_seconds=waiting,
        scheduled_seconds=schedule.seconds * program.runs if schedule else 0.0,
        collectives=traffic,
        compiled_bytes=compiled_bytes,
    )


def _used_when_out_of_memory(message: str) -> float:
    """The bytes that a program needs, from the compiler's message; others raise `PlanError`.

    What the second form calls temporaries are arguments and results, too.
    """
    used = r"[Uu]sed ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm"
    size = re.search(rf"{used}|HLO temporaries \(([\d.]+)([KMGT])\) exceeds", message)
    if size is None:
        raise PlanError(f"a phase does not compile: {message.strip().splitlines()[0][:300]}")
    number, unit = (group for group in size.groups() if group)
    return float(number) * 2 ** (10 * (1 + "KMGT".index(unit)))


def compute_seconds(cost: Cost, chip: Chip, chips: int) -> float:
    """Seconds per step without collectives: the longer of FLOPs and bytes."""
    compute = cost.flops / (chips * chip.flops * FLOPS_SHARE)
    return max(compute, cost.bytes / (chips * chip.bandwidth * BANDWIDTH_SHARE))
