"""Memory, FLOPs and time of a run's phases, compiled for a TPU slice without having that slice.

The TPU compiler is a library (`libtpu`). Without a chip, it reports how much memory of a chip each
program needs, or that it does not fit. The phases are the parts of `sample` and `train_step`.
Between phases the full `TrainState` stays on the chips and everything else is freed.
"""

import importlib.util
import os
import re
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
from jax.sharding import Mesh

from asyppo_jax.config import Config, UserError
from asyppo_jax.config.checks import check_divides_data_axis
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.planning.flops import Cost, phase_costs
from asyppo_jax.planning.hlo import collectives, read_program
from asyppo_jax.planning.hlo_traffic import moved_bytes
from asyppo_jax.planning.phases import PHASES, PhaseProgram, bytes_per_chip, phase_programs
from asyppo_jax.runtime.sharding import make_mesh


class PlanError(UserError, RuntimeError):
    """A plan that cannot be made; the message says why and how to fix it."""


@dataclass(frozen=True)
class Chip:
    """The published numbers of a chip (cloud.google.com/tpu/docs, system architecture pages)."""

    hbm_bytes: float
    flops: float  # bfloat16, per second
    bandwidth: float  # of its memory, bytes per second
    network: float  # between chips, bytes per second, summed over all links


CHIPS = {
    "v5e": Chip(16 * 2**30, 197e12, 819e9, 200e9),
    "v5p": Chip(95 * 2**30, 459e12, 2765e9, 600e9),
    "v6e": Chip(32 * 2**30, 918e12, 1640e9, 448e9),
}
# Slices for the error message, small to large; any other that the compiler knows works too.
TOPOLOGIES = (
    *("v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16"),
    *("v6e:2x2", "v6e:2x4", "v6e:4x4", "v6e:4x8", "v6e:8x8", "v6e:8x16", "v6e:16x16"),
    *("v5p:2x2x1", "v5p:2x2x2", "v5p:2x2x4", "v5p:2x4x4", "v5p:4x4x4", "v5p:4x4x8", "v5p:4x8x8"),
)
GIB = 2**30
# Fractions of the peak rates that the time estimate assumes.
FLOPS_SHARE, BANDWIDTH_SHARE, NETWORK_SHARE = 0.5, 0.8, 0.5


@dataclass
class PhasePlan:
    """One phase: memory per chip, and FLOPs and moved bytes of the full slice."""

    fits: bool
    peak_bytes: float  # arguments, results and temporaries of the program, plus `resident_bytes`
    argument_bytes: float
    temp_bytes: float
    resident_bytes: float  # state that is on the chip but is no argument of this program
    host_bytes: float  # state that is offloaded to the memory of the host
    flops: float  # per step, by formula
    moved_bytes: float  # per step, by formula: the least possible
    seconds: float  # per step, estimated
    compile_seconds: float
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
    hbm_bytes: float
    state_bytes: float  # of the full TrainState, per chip
    fits: bool
    peak_bytes: float  # of the largest phase, per chip
    phases: dict[str, PhasePlan]

    def as_dict(self) -> dict[str, Any]:
        """The plan as nested dicts, for JSON."""
        return asdict(self)


def topology_devices(name: str) -> list[Any]:
    """The devices of a slice such as "v5p:4x4x2", described by the installed compiler.

    Raises:
        PlanError: libtpu is missing, or does not know the slice.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError(
            "the TPU compiler is not installed; run `pip install 'jax[tpu]'` (no TPU is needed)"
        )
    from jax.experimental import topologies

    known = f"choose from {', '.join(CHIPS)} with sizes such as {', '.join(TOPOLOGIES)}"
    if name.split(":")[0] not in CHIPS:
        raise PlanError(f"topology {name!r} has an unknown kind of chip; {known}")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except Exception as error:  # the exception types of the compiler are private
        reason = str(error).strip().splitlines()[0][:200]
        raise PlanError(f"topology {name!r} is not available ({reason}); {known}") from error


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
    `PHASES`; if empty, all but "step", which is the last three phases in one program.

    Raises:
        PlanError: a phase is unknown, or see `topology_devices`.
        ConfigError: the mesh does not fit the slice, or a batch cannot be divided over it.
    """
    unknown = sorted(set(phases) - set(PHASES))
    if unknown:
        raise PlanError(f"{unknown[0]!r} is not a phase; choose from {', '.join(PHASES)}")
    devices = topology_devices(topology)
    chip = CHIPS[topology.split(":")[0]]
    mesh = make_mesh(config.mesh, devices)
    check_divides_data_axis(config, mesh.shape["data"])
    networks = load_networks(config, "tpu")
    costs = phase_costs(config, networks, mesh.shape["data"])
    programs, state = phase_programs(config, networks, mesh)
    plans = {}
    for phase in [p for p in programs if p in (phases or PHASES[:-1])]:
        report(f"{name}: compiling {phase} for {topology}")
        plans[phase] = _plan_phase(programs[phase], costs[phase], chip, mesh)
    if not plans:
        raise PlanError(
            f"{name} has none of the phases {', '.join(phases)}; it has {', '.join(programs)}"
        )
    peak = max(p.peak_bytes for p in plans.values())
    fits = all(p.fits for p in plans.values())
    state_bytes = bytes_per_chip(state)
    return Plan(name, topology, mesh.size, chip.hbm_bytes, state_bytes, fits, peak, plans)


def _plan_phase(program: PhaseProgram, cost: Cost, chip: Chip, mesh: Mesh) -> PhasePlan:
    started = time.perf_counter()
    resident_bytes = bytes_per_chip(program.resident)
    traffic, compiled_bytes = {}, 0.0
    with jax.set_mesh(mesh):
        lowered = jax.jit(program.function, **program.jit).lower(*program.arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        arguments, temporaries = bytes_per_chip(program.arguments), 0.0
        peak = _used_when_out_of_memory(str(error), arguments) + resident_bytes
    else:
        memory: Any = compiled.memory_analysis()
        arguments = float(memory.argument_size_in_bytes)
        # Not `temp_size_in_bytes`: for loops inside a branch it sums more than is live at a time.
        temporaries = memory.peak_memory_in_bytes - arguments
        peak = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes + resident_bytes
        parsed = read_program(compiled.as_text() or "", unknown_trips=program.trips)
        traffic = {
            kind: {"count": t.count * program.runs, "bytes": t.bytes * program.runs}
            for kind, t in collectives(parsed).items()
        }
        if program.kernels is not None:
            compiled_bytes = moved_bytes(parsed, program.kernels) * program.runs * mesh.size
    return PhasePlan(
        fits=peak <= chip.hbm_bytes,
        peak_bytes=peak,
        argument_bytes=arguments,
        temp_bytes=temporaries,
        resident_bytes=resident_bytes,
        host_bytes=bytes_per_chip(program.offloaded),
        flops=cost.flops,
        moved_bytes=cost.bytes,
        seconds=_estimate(cost, traffic, chip, mesh.size),
        compile_seconds=time.perf_counter() - started,
        collectives=traffic,
        compiled_bytes=compiled_bytes,
    )


def _used_when_out_of_memory(message: str, arguments: float) -> float:
    """The bytes that a program needs, from the compiler's message; others raise `PlanError`."""
    size = re.search(r"[Uu]sed ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
    not_included = 0.0
    if size is None:  # the temporaries alone do not fit; the message gives only their size
        size = re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds", message)
        not_included = arguments
    if size is None:
        raise PlanError(f"a phase does not compile: {message.strip().splitlines()[0][:300]}")
    return not_included + float(size.group(1)) * 2 ** (10 * (1 + "KMGT".index(size.group(2))))


def _estimate(cost: Cost, traffic: dict[str, Any], chip: Chip, chips: int) -> float:
    compute = cost.flops / (chips * chip.flops * FLOPS_SHARE)
    memory = cost.bytes / (chips * chip.bandwidth * BANDWIDTH_SHARE)
    network = sum(t["bytes"] for t in traffic.values()) / (chip.network * NETWORK_SHARE)
    return max(compute, memory) + network


def table(planned: Plan) -> str:
    """One line per phase: memory in GiB per chip, FLOPs and traffic of the full slice per step."""
    left = (planned.hbm_bytes - planned.peak_bytes) / GIB
    verdict = (
        f"fits, {left:.1f} GiB to spare" if planned.fits else f"does not fit by {-left:.1f} GiB"
    )
    lines = [
        "",
        f"{planned.config} on {planned.topology} ({planned.chips} chips of "
        f"{planned.hbm_bytes / GIB:.0f} GiB): {verdict}; "
        f"the state is {planned.state_bytes / GIB:.2f} GiB per chip",
        f"{'phase':9}{'peak':>8}{'args':>8}{'temps':>8}{'resident':>10}{'PFLOP':>10}"
        f"{'TB moved':>10}{'est. s':>8}{'compile s':>10}  collectives (count, GB sent per chip)",
    ]
    for name, p in planned.phases.items():
        sent = ", ".join(
            f"{kind} {t['count']:.0f} x, {t['bytes'] / 1e9:.1f}"
            for kind, t in p.collectives.items()
        )
        lines.append(
            f"{name:9}{p.peak_bytes / GIB:8.2f}{p.argument_bytes / GIB:8.2f}"
            f"{p.temp_bytes / GIB:8.2f}{p.resident_bytes / GIB:10.2f}{p.flops / 1e15:10.2f}"
            f"{p.moved_bytes / 1e12:10.2f}{p.seconds:8.1f}{p.compile_seconds:10.0f}  {sent}"
        )
    for name, p in planned.phases.items():
        if p.compiled_bytes:
            lines.append(
                f"{name} as compiled moves {p.compiled_bytes / 1e12:.1f} TB, "
                f"{p.compiled_bytes / p.moved_bytes:.2f} times the least possible"
            )
    on_host = max(p.host_bytes for p in planned.phases.values())
    if on_host:
        lines.append(f"up to {on_host / GIB:.2f} GiB of state per chip are offloaded to the host")
    lines.append(
        "peak, args, temps, resident: GiB per chip. est. s: the larger of the times for FLOPs (at "
        f"{FLOPS_SHARE:.0%} of the chip's rate) and bytes (at {BANDWIDTH_SHARE:.0%}), plus the "
        f"time for collectives (at {NETWORK_SHARE:.0%}), not overlapped."
    )
    return "\n".join(lines)


def ratios(planned: Plan, other: Plan) -> str:
    """Ratios of a plan to another, one line per phase: below 1 it needs less."""
    lines = [f"\n{planned.config} / {other.config}"]
    for name in [phase for phase in planned.phases if phase in other.phases]:
        a, b = planned.phases[name], other.phases[name]
        lines.append(
            f"{name:9} peak {a.peak_bytes / b.peak_bytes:.3f}  FLOPs {a.flops / b.flops:.3f}  "
            f"est. time {a.seconds / b.seconds:.3f}"
        )
    if update_peak(planned) and update_peak(other):
        lines.append(f"{'updates':9} peak {update_peak(planned) / update_peak(other):.3f}")
    lines.append(
        f"{'program':9} peak {planned.peak_bytes / other.peak_bytes:.3f}  "
        f"est. time {step_seconds(planned) / step_seconds(other):.3f}"
    )
    return "\n".join(lines)


def update_peak(planned: Plan) -> float:
    """Peak bytes per chip over the phases after sampling; 0 if none was planned."""
    peaks = [p.peak_bytes for n, p in planned.phases.items() if n not in ("prefill", "decode")]
    return max(peaks, default=0.0)


def step_seconds(planned: Plan) -> float:
    """Estimated seconds per step, the sum over phases; the program of decode includes prefill."""
    return sum(p.seconds for name, p in planned.phases.items())
