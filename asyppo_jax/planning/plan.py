"""Every phase of a run, compiled for a named TPU slice that need not be there.

The TPU compiler is a library (`libtpu`); it says how many bytes of a chip's memory each program
needs, or that it does not fit, without a chip. The phases are the pieces of `sample` and
`train_step`; between them the whole `TrainState` stays on the chips and everything else is freed.
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
from asyppo_jax.planning.phases import PhaseProgram, bytes_per_chip, phase_programs
from asyppo_jax.runtime.sharding import make_mesh


class PlanError(UserError, RuntimeError):
    """A slice that cannot be planned for; the message names the mend."""


@dataclass(frozen=True)
class Chip:
    """One chip, by Google Cloud's published figures (cloud.google.com/tpu/docs, system pages)."""

    hbm_bytes: float
    flops: float  # bfloat16, a second
    bandwidth: float  # of its memory, bytes a second
    network: float  # between chips, bytes a second, all links together


CHIPS = {
    "v5e": Chip(16 * 2**30, 197e12, 819e9, 200e9),
    "v5p": Chip(95 * 2**30, 459e12, 2765e9, 600e9),
    "v6e": Chip(32 * 2**30, 918e12, 1640e9, 448e9),
}
# Named slices, small to large; `topology_desc` takes any other that the compiler knows.
TOPOLOGIES = (
    *("v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16"),
    *("v6e:2x2", "v6e:2x4", "v6e:4x4", "v6e:4x8", "v6e:8x8", "v6e:8x16", "v6e:16x16"),
    *("v5p:2x2x1", "v5p:2x2x2", "v5p:2x2x4", "v5p:2x4x4", "v5p:4x4x4", "v5p:4x4x8", "v5p:4x8x8"),
)
GIB = 2**30
PHASES = ("prefill", "decode", "values", "critics", "actor", "step")
# What the estimated time assumes of a phase.
FLOPS_SHARE, BANDWIDTH_SHARE, NETWORK_SHARE = 0.5, 0.8, 0.5


@dataclass
class PhasePlan:
    """One phase on one chip, in bytes, and over the whole slice, in FLOPs and bytes."""

    fits: bool
    peak_bytes: float  # arguments, results and temporaries of the program, and what else is held
    argument_bytes: float
    temp_bytes: float
    held_bytes: float  # of the state, but no argument of this program
    host_bytes: float  # of the state, in the memory of the chip's host
    flops: float  # by formula, of one step
    moved_bytes: float  # by formula, of one step
    seconds: float  # estimated, of one step
    compile_seconds: float
    collectives: dict[str, dict[str, float]] = field(default_factory=dict)
    compiled_bytes: float = 0.0  # of decode: moved as compiled, over the slice; `moved_bytes` is
    # the least possible, each shard of `data` reading all weights a turn, each row its own cache


@dataclass
class Plan:
    """A config on a slice."""

    config: str
    topology: str
    chips: int
    hbm_bytes: float
    state_bytes: float  # of the whole TrainState, a chip
    fits: bool
    peak_bytes: float  # of the largest phase, a chip
    phases: dict[str, PhasePlan]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def topology_devices(name: str) -> list[Any]:
    """The chips of a slice such as "v5p:4x4x2", from the compiler that is installed here.

    Raises:
        PlanError: libtpu is missing, or knows no such slice.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no metadata server to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError(
            "the TPU compiler is not installed; pip install 'jax[tpu]' brings it (no TPU is needed)"
        )
    from jax.experimental import topologies

    known = f"known are {', '.join(CHIPS)} with sizes such as {', '.join(TOPOLOGIES)}"
    if name.split(":")[0] not in CHIPS:
        raise PlanError(f"topology {name!r} is of no known kind of chip; {known}")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except Exception as error:  # the compiler's own kinds of error are private to it
        reason = str(error).strip().splitlines()[0][:200]
        raise PlanError(f"topology {name!r} cannot be had ({reason}); {known}") from error


def plan(
    config: Config,
    topology: str,
    *,
    name: str,
    phases: Collection[str] = (),
    tell: Callable[[str], None] = print,
) -> Plan:
    """Compiles the phases of `config` for a slice; `tell` hears of each as it begins.

    `phases` names some of `PHASES`; none means all but "step", which is three of them at once.

    Raises:
        PlanError: see `topology_devices`; or an unknown phase.
        ConfigError: the mesh does not fit the slice, or rows cannot be spread over it.
    """
    unknown = sorted(set(phases) - set(PHASES))
    if unknown:
        raise PlanError(f"{unknown[0]!r} is no phase; known are {', '.join(PHASES)}")
    devices = topology_devices(topology)
    chip = CHIPS[topology.split(":")[0]]
    mesh = make_mesh(config.mesh, devices)
    check_divides_data_axis(config, mesh.shape["data"])
    networks = load_networks(config, "tpu")
    costs = phase_costs(config, networks, mesh.shape["data"])
    programs, state = phase_programs(config, networks, mesh)
    found = {}
    for phase in [x for x in programs if x in (phases or PHASES[:-1])]:
        tell(f"{name}: compiling {phase} for {topology}")
        found[phase] = _plan_phase(programs[phase], costs[phase], chip, mesh)
    if not found:
        raise PlanError(f"{name} has none of the phases {', '.join(phases)}")
    peak = max(p.peak_bytes for p in found.values())
    fits = all(p.fits for p in found.values())
    state_bytes = bytes_per_chip(state)
    return Plan(name, topology, mesh.size, chip.hbm_bytes, state_bytes, fits, peak, found)


def _plan_phase(program: PhaseProgram, cost: Cost, chip: Chip, mesh: Mesh) -> PhasePlan:
    started = time.perf_counter()
    held = bytes_per_chip(program.held)
    traffic, moved = {}, 0.0
    with jax.set_mesh(mesh):
        lowered = jax.jit(program.function, **program.jit).lower(*program.arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        arguments, temporaries = bytes_per_chip(program.arguments), 0.0
        used = _used_when_out_of_memory(str(error), arguments) + held
    else:
        memory: Any = compiled.memory_analysis()
        arguments = float(memory.argument_size_in_bytes)
        # Not `temp_size_in_bytes`: of loops inside a branch it adds up more than is ever live.
        temporaries = memory.peak_memory_in_bytes - arguments
        used = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes + held
        read = read_program(compiled.as_text() or "", unknown_trips=program.trips)
        traffic = {
            kind: {"count": t.count * program.runs, "bytes": t.bytes * program.runs}
            for kind, t in collectives(read).items()
        }
        if program.kernels is not None:
            moved = moved_bytes(read, program.kernels) * program.runs * mesh.size
    return PhasePlan(
        fits=used <= chip.hbm_bytes,
        peak_bytes=used,
        argument_bytes=arguments,
        temp_bytes=temporaries,
        held_bytes=held,
        host_bytes=bytes_per_chip(program.offloaded),
        flops=cost.flops,
        moved_bytes=cost.bytes,
        seconds=_estimate(cost, traffic, chip, mesh.size),
        compile_seconds=time.perf_counter() - started,
        collectives=traffic,
        compiled_bytes=moved,
    )


def _used_when_out_of_memory(message: str, arguments: float) -> float:
    """The bytes that the compiler says a program would have used; any other error is passed on."""
    found = re.search(r"[Uu]sed ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
    besides = 0.0
    if found is None:  # a program whose temporaries alone are too many
        found = re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds", message)
        besides = arguments
    if found is None:
        raise PlanError(f"a phase does not compile: {message.strip().splitlines()[0][:300]}")
    return besides + float(found.group(1)) * 2 ** (10 * (1 + "KMGT".index(found.group(2))))


def _estimate(cost: Cost, traffic: dict[str, Any], chip: Chip, chips: int) -> float:
    compute = cost.flops / (chips * chip.flops * FLOPS_SHARE)
    memory = cost.bytes / (chips * chip.bandwidth * BANDWIDTH_SHARE)
    network = sum(t["bytes"] for t in traffic.values()) / (chip.network * NETWORK_SHARE)
    return max(compute, memory) + network


def table(found: Plan) -> str:
    """A line a phase; memory in GiB a chip, FLOPs and traffic of the whole slice in one step."""
    left = (found.hbm_bytes - found.peak_bytes) / GIB
    verdict = f"fits, {left:.1f} GiB to spare" if found.fits else f"does not fit by {-left:.1f} GiB"
    lines = [
        "",
        f"{found.config} on {found.topology} ({found.chips} chips of "
        f"{found.hbm_bytes / GIB:.0f} GiB): {verdict}; "
        f"the state is {found.state_bytes / GIB:.2f} GiB a chip",
        f"{'phase':9}{'peak':>8}{'args':>8}{'temps':>8}{'held':>8}{'PFLOP':>10}{'TB moved':>10}"
        f"{'est. s':>8}{'compile s':>10}  collectives (times, GB sent a chip)",
    ]
    for name, p in found.phases.items():
        sent = ", ".join(
            f"{kind} {t['count']:.0f} x, {t['bytes'] / 1e9:.1f}"
            for kind, t in p.collectives.items()
        )
        lines.append(
            f"{name:9}{p.peak_bytes / GIB:8.2f}{p.argument_bytes / GIB:8.2f}"
            f"{p.temp_bytes / GIB:8.2f}{p.held_bytes / GIB:8.2f}{p.flops / 1e15:10.2f}"
            f"{p.moved_bytes / 1e12:10.2f}{p.seconds:8.1f}{p.compile_seconds:10.0f}  {sent}"
        )
    for name, p in found.phases.items():
        if p.compiled_bytes:
            lines.append(
                f"{name} as compiled moves {p.compiled_bytes / 1e12:.1f} TB, "
                f"{p.compiled_bytes / p.moved_bytes:.2f} times the least possible"
            )
    on_host = max(p.host_bytes for p in found.phases.values())
    if on_host:
        lines.append(f"of the state, up to {on_host / GIB:.2f} GiB a chip wait on the host")
    lines.append(
        "peak, args, temps, held: GiB a chip. est. s: the larger of FLOPs at "
        f"{FLOPS_SHARE:.0%} and bytes at {BANDWIDTH_SHARE:.0%} of the chip's rates, and the "
        f"collectives at {NETWORK_SHARE:.0%}, not overlapped."
    )
    return "\n".join(lines)


def ratios(found: Plan, other: Plan) -> str:
    """The config over the other one, a phase each: below 1 it needs less."""
    lines = [f"\n{found.config} / {other.config}"]
    for name in [x for x in found.phases if x in other.phases]:
        a, b = found.phases[name], other.phases[name]
        lines.append(
            f"{name:9} peak {a.peak_bytes / b.peak_bytes:.3f}  FLOPs {a.flops / b.flops:.3f}  "
            f"est. time {a.seconds / b.seconds:.3f}"
        )
    if update_peak(found) and update_peak(other):
        lines.append(f"{'updates':9} peak {update_peak(found) / update_peak(other):.3f}")
    lines.append(
        f"{'program':9} peak {found.peak_bytes / other.peak_bytes:.3f}  "
        f"est. time {step_seconds(found) / step_seconds(other):.3f}"
    )
    return "\n".join(lines)


def update_peak(found: Plan) -> float:
    """Of the phases after sampling, bytes a chip; 0 where none was planned."""
    peaks = [p.peak_bytes for n, p in found.phases.items() if n not in ("prefill", "decode")]
    return max(peaks, default=0.0)


def step_seconds(found: Plan) -> float:
    """Estimated, of one step; decode's program holds the prefill."""
    return sum(p.seconds for name, p in found.phases.items())
