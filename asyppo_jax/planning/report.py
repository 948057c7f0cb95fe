"""A plan as text: a table of its phases, its verdict, and ratios of two plans."""

from asyppo_jax.planning.flops import BEFORE_UPDATES
from asyppo_jax.planning.phases import AFTER_SAMPLING
from asyppo_jax.planning.plan import BANDWIDTH_SHARE, FLOPS_SHARE, NETWORK_SHARE, Plan
from asyppo_jax.planning.topology import is_cubes, sizes_of_slice

GIB = 2**30


def table(planned: Plan) -> str:
    """One line per phase: memory in GiB per chip, FLOPs and traffic of the full slice per step."""
    lines = [
        "",
        f"{planned.config} on {planned.topology} ({_devices(planned)} "
        f"{round(planned.hbm_bytes / GIB, 2):g} GiB): {verdict(planned)}; "
        f"the state is {planned.state_bytes / GIB:.2f} GiB per chip",
        f"{'phase':9}{'peak':>8}{'args':>8}{'temps':>8}{'resident':>10}{'FLOPs':>14}"
        f"{'moved':>12}{'est. s':>9}{'waits':>8}{'network':>9}{'cycles':>9}{'compile s':>11}"
        "  collectives (count, sent per chip)",
    ]
    for name, p in planned.phases.items():
        sent = ", ".join(
            f"{kind} {t['count']:.0f} x, {quantity(t['bytes'], 'B')}"
            for kind, t in p.collectives.items()
        )
        lines.append(
            f"{name:9}{p.peak_bytes / GIB:8.2f}{p.argument_bytes / GIB:8.2f}"
            f"{p.temp_bytes / GIB:8.2f}{p.resident_bytes / GIB:10.2f}"
            f"{quantity(p.flops, 'FLOP'):>14}{quantity(p.moved_bytes, 'B'):>12}"
            f"{_seconds(p.seconds):>9}{_seconds(p.waiting_seconds):>8}"
            f"{_seconds(p.network_seconds):>9}{_seconds(p.scheduled_seconds):>9}"
            f"{p.compile_seconds:11.0f}  {sent}"
        )
    for name, p in planned.phases.items():
        if p.compiled_bytes:
            lines.append(
                f"{name} as compiled moves {quantity(p.compiled_bytes, 'B')}, "
                f"{p.compiled_bytes / p.moved_bytes:.2f} times the least possible"
            )
    if _gathers_by_reductions(planned):
        lines.append(
            "the compiler makes all-reduces of all-gathers over all chips of this slice, which "
            "send twice the bytes; with config.mesh.model=2 it does not"
        )
    on_host = max(p.host_bytes for p in planned.phases.values())
    if on_host:
        lines.append(f"up to {on_host / GIB:.2f} GiB of state per chip are offloaded to the host")
    lines.append(
        "peak, args, temps, resident: GiB per chip. est. s: the larger of the times for FLOPs (at "
        f"{FLOPS_SHARE:.0%} of the chip's rate) and bytes moved (at {BANDWIDTH_SHARE:.0%}), plus "
        "waits, the time in which the chip waits for collectives by the order of the compiled "
        f"instructions (links at {NETWORK_SHARE:.0%}). network: the time of all collectives on all "
        "links, hidden or not. cycles: the time by the compiler's cycles, with waits, without "
        "kernels."
    )
    lines.append(total(planned))
    return "\n".join(lines)


def _gathers_by_reductions(planned: Plan) -> bool:
    """Whether all-gathers of an update became all-reduces, as on v5p slices of whole cubes.

    See findings/libtpu_all_gather_over_a_cube_is_an_all_reduce.sh.
    """
    if not planned.topology.startswith("v5p:") or not is_cubes(sizes_of_slice(planned.topology)):
        return False
    updates = [p.collectives for name, p in planned.phases.items() if name in AFTER_SAMPLING]
    return any("all-reduce" in x and "all-gather" not in x for x in updates)


def _seconds(seconds: float) -> str:
    return f"{seconds:.{1 if seconds >= 1 else 3}f}"


def _devices(planned: Plan) -> str:
    per_chip = planned.devices // planned.chips
    if per_chip > 1:
        return f"{planned.chips} chips of {per_chip} devices; 'per chip' is per device, each of"
    return f"{planned.chips} chips of"


def total(planned: Plan) -> str:
    """The estimated seconds per step of the compiled phases, and the hours of the run."""
    if planned.fits is False:
        return f"no estimate of a step: {_largest(planned)}"
    seconds, steps = step_seconds(planned), planned.num_steps
    of = f" of {', '.join(planned.phases)} alone" if planned.not_compiled else ""
    hours = seconds * steps / 3600
    return (
        f"estimate{of}: {_short(seconds)} s per step; the {steps} steps of the run take "
        f"{_short(hours)} hours, {_short(hours * planned.chips)} chip-hours. It assumes that every "
        "answer has its maximum length, and leaves out evaluations, checkpoints and slow rewards."
    )


def _largest(planned: Plan) -> str:
    """The phase that needs most memory, and what makes it smaller."""
    name = max(planned.phases, key=lambda phase: planned.phases[phase].peak_bytes)
    setting = "sampling.slots" if name in ("prefill", "decode") else "batching.microbatch_size"
    return (
        f"{name} needs most memory; lower config.{setting}, or see docs/pods.md, 'Choose the mesh'"
    )


def quantity(value: float, unit: str) -> str:
    """A number with the prefix that fits: 1.5e15 FLOP is "1.50 PFLOP"."""
    power = max(0, min(6, (len(f"{value:.0f}") - 1) // 3))
    return f"{value / 1000**power:.2f} {' kMGTPE'[power].strip()}{unit}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def verdict(planned: Plan) -> str:
    """Whether the compiled phases fit and by how much, and which phases were not compiled."""
    left = (planned.hbm_bytes - planned.peak_bytes) / GIB
    if planned.fits is False:
        text = f"does not fit by {max(-left, 0):.1f} GiB"
    elif planned.fits:
        text = f"fits, {left:.1f} GiB to spare"
    else:
        text = f"{_fit(planned)}, {left:.1f} GiB to spare"
    return f"{text}; {_not_compiled(planned)}" if planned.not_compiled else text


def search_verdict(planned: Plan) -> str:
    """What a search says of its last plan: that of the first slice that fits, or of the last."""
    if planned.fits is False:
        return f"{planned.config} fits in none of these slices"
    where = f"{planned.topology}, the first of these slices with enough memory"
    if planned.fits:
        return f"{planned.config} fits in {where}"
    return (
        f"{_fit(planned)} in {where} for that; {_not_compiled(planned)}, so {planned.config} as a "
        "whole may need a larger slice"
    )


def _fit(planned: Plan) -> str:
    names = ", ".join(planned.phases)
    return f"{names} fit" if len(planned.phases) > 1 else f"{names} fits"


def _not_compiled(planned: Plan) -> str:
    names = planned.not_compiled
    return f"{', '.join(names)} {'were' if len(names) > 1 else 'was'} not compiled"


def ratios(planned: Plan, other: Plan) -> str:
    """Ratios of a plan to another, one line per phase: below 1 it needs less."""
    lines = [f"\n{planned.config} / {other.config}"]
    for name in [phase for phase in planned.phases if phase in other.phases]:
        a, b = planned.phases[name], other.phases[name]
        flops = f"{a.flops / b.flops:.3f}" if b.flops else "none"
        lines.append(
            f"{name:9} peak {a.peak_bytes / b.peak_bytes:.3f}  FLOPs {flops}  "
            f"est. time {a.seconds / b.seconds:.3f}"
        )
    missing = {*planned.not_compiled, *other.not_compiled}
    if update_peak(planned) and update_peak(other) and not missing & set(AFTER_SAMPLING):
        lines.append(f"{'updates':9} peak {update_peak(planned) / update_peak(other):.3f}")
    lines.append(
        f"{'compiled' if missing else 'program':9} "
        f"peak {planned.peak_bytes / other.peak_bytes:.3f}  "
        f"est. time {step_seconds(planned) / step_seconds(other):.3f}"
    )
    return "\n".join(lines)


def update_peak(planned: Plan) -> float:
    """Peak bytes per chip over the compiled phases after sampling; 0 if there is none."""
    peaks = [p.peak_bytes for n, p in planned.phases.items() if n not in BEFORE_UPDATES]
    return max(peaks, default=0.0)


def step_seconds(planned: Plan) -> float:
    """Estimated seconds, the sum over compiled phases; the program of decode includes prefill."""
    return sum(p.seconds for name, p in planned.phases.items())
