"""One measurement: timed runs of ours and of a peer, the machine's limits, and the result."""

import resource
import statistics
import time
from typing import Any

import jax

from asyppo_jax.models.actor_critic import Networks
from experiments.benchmark import work
from experiments.benchmark.inputs import make_inputs
from experiments.benchmark.limits import DATA_SHEETS, gemm_gflops, read_gigabytes
from experiments.benchmark.peers import Peer
from experiments.benchmark.profile import describe_profile, profiled
from experiments.benchmark.programs import (
    Program,
    sampling_program,
    step_program,
    update_program,
)
from experiments.benchmark.setting import Setting
from experiments.benchmark.work import Work

PROGRAMS = {"sample": sampling_program, "update": update_program, "step": step_program}


def measure(
    phase: str,
    setting: Setting,
    *,
    cores: int,
    repeats: int,
    beside: tuple[str, str] | None = None,
    profile: str = "",
) -> dict[str, Any]:
    """Times `phase`, alternating with the peer `beside` (name, interpreter); returns the result.

    `phases` has the seconds of the run of median length. `share_of_limit` is the time for the
    least work by formula at the measured rates, divided by the least time measured (the least,
    because noise only adds time). `processor_seconds` is CPU time per core; it does not include the
    time that other programs take on a shared machine. On an idle machine it equals the seconds.
    """
    inputs = make_inputs(setting)
    networks, program = inputs.networks, PROGRAMS[phase](inputs, setting)
    peer = None if beside is None else Peer(*beside, phase, inputs, setting, cores)
    ours, processor, theirs = _alternate(program, peer, cores, repeats)
    table = profiled(program.run, profile) if profile else []
    memory = _peak_memory()
    rows = setting.microbatch * (setting.prompt + setting.completion)
    if phase == "sample":
        rows = setting.slots or setting.sequences
    gflops = gemm_gflops(networks.actor.config, rows, setting.dtype)
    gigabytes, phase_works = read_gigabytes(), works(phase, networks, setting)
    limit = sum(w.seconds(gflops, gigabytes) for ws in phase_works.values() for w in ws)
    totals = [sum(seconds.values()) for seconds in ours]
    median = statistics.median(totals)
    result = {
        "phase": phase,
        "sequences": setting.sequences,
        "tokens": program.tokens,
        "tokens_per_s": program.tokens / median,
        "seconds_median": median,
        "seconds_least": min(totals),
        "runs": repeats,
        "phases": ours[totals.index(statistics.median_low(totals))],
        "compile_seconds": sum(program.compile_seconds.values()),
        "peak_memory_gb": memory,
        "gemm_gflops": gflops,
        "read_gb_per_s": gigabytes,
        "limit_tokens_per_s": program.tokens / limit,
        "share_of_limit": limit / min(totals),
        "processor_seconds": statistics.median(processor),
        "share_of_limit_processor": limit / min(processor),
        "cores": cores,
        "device": jax.devices()[0].device_kind,
        "dtype": setting.dtype,
        "jax": jax.__version__,
        **_rates(phase_works, ours, setting, networks),
        **program.notes(),
    }
    if table:
        result["profile"] = table
    if peer is not None and beside is not None:
        result |= _compare(beside[0], peer, theirs, result, cores)
    return result


def _alternate(
    program: Program, peer: Peer | None, cores: int, repeats: int
) -> tuple[list[dict[str, float]], list[float], list[dict[str, Any]]]:
    """Seconds by phase and processor seconds per core of our runs, and the peer's results."""
    ours, processor, theirs = [], [], []
    try:
        for _ in range(repeats):
            before = time.process_time()
            ours.append(program.run())
            processor.append((time.process_time() - before) / cores)
            if peer is not None:
                theirs.append(peer.run())
    finally:
        if peer is not None:
            peer.close()
    return ours, processor, theirs


def works(phase: str, networks: Networks, setting: Setting) -> dict[str, list[Work]]:
    """The least work by formula, with the same names as the seconds of `Program.run`."""
    actor = networks.actor.config
    critic = networks.critic.config if networks.critic is not None else actor
    sampling = {"sample": [work.prefill_work(actor, setting), work.decode_work(actor, setting)]}
    update = {
        "critics": [work.critics_work(critic, setting)],
        "actor": [work.actor_work(actor, setting)],
    }
    if phase in ("sample", "update"):
        return sampling if phase == "sample" else update
    return sampling | {"values": [work.values_work(critic, setting)]} | update


def _rates(
    phase_works: dict[str, list[Work]],
    runs: list[dict[str, float]],
    setting: Setting,
    networks: Networks,
) -> dict[str, Any]:
    """The rates of every phase in its fastest run, and their shares of a known GPU's data sheet.

    For sampling also the bandwidth. It counts the bytes that the device's cache backend reads: a
    kernel reads the prompt once for every row.
    """
    least = {name: min(run[name] for run in runs) for name in phase_works}
    flops = {name: sum(w.flops for w in phase) for name, phase in phase_works.items()}
    rates: dict[str, Any] = {"gflops_by_phase": {n: 1e-9 * flops[n] / s for n, s in least.items()}}
    sheet = DATA_SHEETS.get(jax.devices()[0].device_kind)
    if "sample" in phase_works:
        shared = networks.actor.decode.for_small_batch
        read = work.decode_work(networks.actor.config, setting, shared=shared).bytes
        rates["decode_gb_per_s"] = 1e-9 * read / least["sample"]
    if sheet is None or setting.dtype != "bfloat16":
        return rates
    shares = {n: rate / sheet.gflops for n, rate in rates["gflops_by_phase"].items()}
    rates |= {"mfu_by_phase": shares, "data_sheet": sheet._asdict()}
    if "sample" in phase_works:
        rates["decode_share_of_bandwidth"] = rates["decode_gb_per_s"] / sheet.gigabytes
    return rates


def _peak_memory() -> float:
    """Peak memory in 10⁹ bytes: of the accelerator, if it reports it, else of the process."""
    stats = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _compare(
    name: str, peer: Peer, runs: list[dict[str, Any]], ours: dict[str, Any], cores: int
) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    processor = statistics.median(run["cpu_seconds"] / cores for run in runs)
    theirs = statistics.median(seconds)
    notes = {k: v for k, v in runs[0].items() if k not in ("seconds", "cpu_seconds")}
    return {
        "peer": name,
        "peer_versions": peer.ready["versions"],
        "peer_tokens_per_s": ours["tokens"] / theirs,
        "peer_seconds_median": theirs,
        "peer_seconds_least": min(seconds),
        "peer_processor_seconds": processor,
        "peer_start_seconds": peer.ready["start_seconds"],
        "times_faster": theirs / ours["seconds_median"],
        "times_faster_processor": processor / ours["processor_seconds"],
        **{f"peer_{k}": v for k, v in notes.items()},
    }


def describe(result: dict[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['phase']}: {result['tokens_per_s']:,.0f} real tokens/s "
        f"({result['tokens']:,} in {result['seconds_median']:.2f} s, the median of "
        f"{result['runs']} runs; least {result['seconds_least']:.2f} s)",
        f"  {result['share_of_limit']:.1%} of the limit of {result['limit_tokens_per_s']:,.0f} "
        f"tokens/s at {result['gemm_gflops']:.0f} GFLOP/s and {result['read_gb_per_s']:.1f} GB/s "
        f"({result['share_of_limit_processor']:.1%} by processor time)",
        f"  compiled in {result['compile_seconds']:.1f} s, peak memory "
        f"{result['peak_memory_gb']:.2f} GB, {result['cores']} cores",
    ]
    for name, rate in result["gflops_by_phase"].items():
        share = result.get("mfu_by_phase", {}).get(name)
        of_sheet = f", {share:.1%} of the data sheet (MFU)" if share is not None else ""
        lines.append(f"  {name}: {rate / 1e3:,.3f} TFLOP/s{of_sheet}")
    if "decode_gb_per_s" in result:
        share = result.get("decode_share_of_bandwidth")
        of_sheet = f", {share:.1%} of the data sheet" if share is not None else ""
        lines.append(
            f"  decoding reads {result['decode_gb_per_s']:,.1f} GB/s of weights and cache{of_sheet}"
        )
    total = sum(result["phases"].values())
    if len(result["phases"]) > 1:
        seconds = (f"{k} {v:.3f} s ({v / total:.2%})" for k, v in result["phases"].items())
        lines.append("  " + ", ".join(seconds))
    if "peer" in result:
        lines.append(
            f"  {result['peer']}: {result['peer_tokens_per_s']:,.0f} tokens/s; ours is "
            f"{result['times_faster']:.2f} times as fast, "
            f"{result['times_faster_processor']:.2f} times by processor time"
        )
    lines += [f"  {line}" for line in describe_profile(result.get("profile", []))]
    return "\n".join(lines)
