"""One measurement: ours, beside it a peer's in turn, the machine's limits, and what it comes to."""

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
    """Times `phase` a few times, with the peer `beside` (name, interpreter) in turn.

    Of the result, seconds of phases are those of the run of median length. `share_of_limit` is the
    time that the formula's work takes at the measured rates, over the least time seen: noise only
    ever adds to either. Processor seconds, a core, leave out what other programs took of a shared
    machine; on an idle one they are the seconds.
    """
    inputs = make_inputs(setting)
    networks, program = inputs.networks, PROGRAMS[phase](inputs, setting)
    peer = None if beside is None else Peer(*beside, phase, inputs, setting, cores)
    ours, processor, theirs = _in_turn(program, peer, cores, repeats)
    table = profiled(program.run, profile) if profile else []
    memory = _peak_memory()
    rows = setting.microbatch * (setting.prompt + setting.completion)
    if phase == "sample":
        rows = setting.slots or setting.sequences
    gflops = gemm_gflops(networks.actor.config, rows, setting.dtype)
    gigabytes, parts = read_gigabytes(), works(phase, networks, setting)
    limit = sum(w.seconds(gflops, gigabytes) for of_phase in parts.values() for w in of_phase)
    totals = [sum(seconds.values()) for seconds in ours]
    middle = statistics.median(totals)
    result = {
        "phase": phase,
        "sequences": setting.sequences,
        "tokens": program.tokens,
        "tokens_per_s": program.tokens / middle,
        "seconds_median": middle,
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
        **_rates(parts, ours, setting, networks),
        **program.notes(),
    }
    if table:
        result["profile"] = table
    if peer is not None and beside is not None:
        result |= _beside(beside[0], peer, theirs, result, cores)
    return result


def _in_turn(
    program: Program, peer: Peer | None, cores: int, repeats: int
) -> tuple[list[dict[str, float]], list[float], list[dict[str, Any]]]:
    """Runs of ours and their processor seconds a core, and the peer's runs, one after another."""
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
    """The least work of every part of a phase, by the names of `Program.run`'s seconds."""
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
    parts: dict[str, list[Work]],
    runs: list[dict[str, float]],
    setting: Setting,
    networks: Networks,
) -> dict[str, Any]:
    """The rates of every part over its least time, and their shares of a known card's data sheet.

    Of sampling that is bytes, as the device's form reads them: a kernel reads a row's whole prompt.
    """
    least = {name: min(run[name] for run in runs) for name in parts}
    flops = {name: sum(w.flops for w in of_part) for name, of_part in parts.items()}
    rates: dict[str, Any] = {"gflops_by_phase": {n: 1e-9 * flops[n] / s for n, s in least.items()}}
    sheet = DATA_SHEETS.get(jax.devices()[0].device_kind)
    if "sample" in parts:
        shared = networks.actor.decode.for_few_rows
        read = work.decode_work(networks.actor.config, setting, shared=shared).bytes
        rates["decode_gb_per_s"] = 1e-9 * read / least["sample"]
    if sheet is None or setting.dtype != "bfloat16":
        return rates
    shares = {n: rate / sheet.gflops for n, rate in rates["gflops_by_phase"].items()}
    rates |= {"mfu_by_phase": shares, "data_sheet": sheet._asdict()}
    if "sample" in parts:
        rates["decode_share_of_bandwidth"] = rates["decode_gb_per_s"] / sheet.gigabytes
    return rates


def _peak_memory() -> float:
    """10⁹ bytes: of an accelerator's memory, where it tells; else of the process."""
    told = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if told and "peak_bytes_in_use" in told:
        return told["peak_bytes_in_use"] / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _beside(
    name: str, peer: Peer, runs: list[dict[str, Any]], ours: dict[str, Any], cores: int
) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    processor = statistics.median(run["cpu_seconds"] / cores for run in runs)
    theirs = statistics.median(seconds)
    told = {k: v for k, v in runs[0].items() if k not in ("seconds", "cpu_seconds")}
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
        **{f"peer_{k}": v for k, v in told.items()},
    }


def describe(result: dict[str, Any]) -> str:
    """The result for a reader."""
    lines = [
        f"{result['phase']}: {result['tokens_per_s']:,.0f} real tokens/s "
        f"({result['tokens']:,} in {result['seconds_median']:.2f} s, the median of "
        f"{result['runs']}; least {result['seconds_least']:.2f} s)",
        f"  limit {result['limit_tokens_per_s']:,.0f} tokens/s at {result['gemm_gflops']:.0f} "
        f"GFLOP/s and {result['read_gb_per_s']:.1f} GB/s, of which {result['share_of_limit']:.1%}; "
        f"by processor time {result['share_of_limit_processor']:.1%}",
        f"  compiled in {result['compile_seconds']:.1f} s, peak memory "
        f"{result['peak_memory_gb']:.2f} GB, {result['cores']} cores",
    ]
    for name, rate in result["gflops_by_phase"].items():
        share = result.get("mfu_by_phase", {}).get(name)
        of_sheet = f", {share:.1%} of the data sheet's (MFU)" if share is not None else ""
        lines.append(f"  {name}: {rate / 1e3:,.3f} TFLOP/s{of_sheet}")
    if "decode_gb_per_s" in result:
        share = result.get("decode_share_of_bandwidth")
        of_sheet = f", {share:.1%} of the data sheet's" if share is not None else ""
        lines.append(
            f"  decoding reads {result['decode_gb_per_s']:,.1f} GB/s of weights and cache{of_sheet}"
        )
    total = sum(result["phases"].values())
    if len(result["phases"]) > 1:
        parts = (f"{k} {v:.3f} s ({v / total:.2%})" for k, v in result["phases"].items())
        lines.append("  " + ", ".join(parts))
    if "peer" in result:
        lines.append(
            f"  {result['peer']}: {result['peer_tokens_per_s']:,.0f} tokens/s; ours is "
            f"{result['times_faster']:.2f} times as fast, "
            f"{result['times_faster_processor']:.2f} by processor time"
        )
    lines += [f"  {line}" for line in describe_profile(result.get("profile", []))]
    return "\n".join(lines)
