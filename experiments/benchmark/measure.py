"""One measurement: ours, beside it a peer's in turn, the machine's limits, and what it comes to."""

import resource
import statistics
import time
from typing import Any

import jax
import jaxlib

from asyppo_jax.models.actor_critic import Networks
from experiments.benchmark import work
from experiments.benchmark.inputs import make_inputs
from experiments.benchmark.limits import gemm_gflops, read_gigabytes
from experiments.benchmark.peers import Peer
from experiments.benchmark.programs import sampling_program, step_program, update_program
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
) -> dict[str, Any]:
    """Times `phase` a few times, with the peer `beside` (name, interpreter) in turn.

    Of the result, seconds of phases are those of the run of median length. `share_of_limit` is the
    time that the formula's work takes at the measured rates, over the least time seen: noise only
    ever adds to either. Processor seconds, a core, leave out what other programs took of a shared
    machine; on an idle one they are the seconds.
    """
    inputs = make_inputs(setting)
    program = PROGRAMS[phase](inputs, setting)
    ours, processor, theirs = [], [], []
    peer = None
    try:
        if beside is not None:
            peer = Peer(*beside, phase, inputs, setting, cores)
        for _ in range(repeats):
            before = time.process_time()
            ours.append(program.run())
            processor.append((time.process_time() - before) / cores)
            if peer is not None:
                theirs.append(peer.run())
    finally:
        if peer is not None:
            peer.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    rows = setting.microbatch * (setting.prompt + setting.completion)
    if phase == "sample":
        rows = setting.slots or setting.sequences
    gflops, gigabytes = gemm_gflops(inputs.networks.actor.config, rows), read_gigabytes()
    limit = sum(w.seconds(gflops, gigabytes) for w in works(phase, inputs.networks, setting))
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
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        **program.notes(),
    }
    if peer is not None and beside is not None:
        result |= _beside(beside[0], peer, theirs, result, cores)
    return result


def works(phase: str, networks: Networks, setting: Setting) -> list[Work]:
    """The least work of every part of a phase."""
    actor = networks.actor.config
    critic = networks.critic.config if networks.critic is not None else actor
    sampling = [work.prefill_work(actor, setting), work.decode_work(actor, setting)]
    update = [work.critics_work(critic, setting), work.actor_work(actor, setting)]
    parts = {"sample": sampling, "update": update}
    return parts.get(phase) or [*sampling, work.values_work(critic, setting), *update]


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
    return "\n".join(lines)
