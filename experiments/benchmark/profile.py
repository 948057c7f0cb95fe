"""Where the time of a run goes: a trace by jax's profiler, its operations added up by name."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax

MOST_LINES = 25
_OUTER = {"while", "call", "conditional"}  # of a CPU's trace: what they hold is listed itself


def profiled(run: Callable[[], Any], directory: str) -> list[dict[str, Any]]:
    """One run, traced into `directory`: by operation milliseconds, calls and share, longest first.

    Numbers at the end of a name are left off, so that the layers' like operations count as one.
    "(idle)" is the time between the first and the last operation in which none ran. On a CPU
    operations of several threads overlap, and there is no such line.
    """
    with jax.profiler.trace(directory):
        run()
    newest = max(glob.glob(f"{directory}/**/*.xplane.pb", recursive=True), key=os.path.getmtime)
    data: Any = jax.profiler.ProfileData.from_file(newest)
    spans = [event for plane in data.planes for event in _operations(plane)]
    return summary(spans, on_device=jax.default_backend() != "cpu")


def _operations(plane: Any) -> list[tuple[str, float, float]]:
    """(name, start, end) in nanoseconds of what a device's streams, or a CPU's threads, ran."""
    found = []
    on_device = plane.name.startswith("/device:")
    for line in plane.lines:
        if on_device and not (line.name.startswith("Stream") or line.name == "XLA Ops"):
            continue
        for event in line.events:
            kind = event.name.partition(".")[0]
            if on_device or (kind not in _OUTER and any(n == "hlo_op" for n, _ in event.stats)):
                found.append((event.name, event.start_ns, event.start_ns + event.duration_ns))
    return found


def summary(spans: list[tuple[str, float, float]], *, on_device: bool) -> list[dict[str, Any]]:
    """Spans added up by name, with their share of the time from the first to the last."""
    if not spans:
        return []
    total, calls = defaultdict(float), defaultdict(int)
    for name, start, end in spans:
        kind = re.sub(r"[._]\d+$", "", name)
        total[kind] += end - start
        calls[kind] += 1
    whole = max(end for _, _, end in spans) - min(start for _, start, _ in spans)
    if on_device:
        total["(idle)"], calls["(idle)"] = whole - _covered(spans), 1
    return [
        {"name": name, "ms": 1e-6 * total[name], "calls": calls[name], "share": total[name] / whole}
        for name in sorted(total, key=lambda n: -total[n])
    ]


def _covered(spans: list[tuple[str, float, float]]) -> float:
    covered, reached = 0.0, float("-inf")
    for _, start, end in sorted(spans, key=lambda span: span[1]):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def describe_profile(table: list[dict[str, Any]]) -> list[str]:
    """Lines for a reader, the longest operations first."""
    if not table:
        return []
    lines = [f"{'ms':>10} {'calls':>7} {'share':>6}  operation"]
    for row in table[:MOST_LINES]:
        lines.append(f"{row['ms']:10.2f} {row['calls']:7} {row['share']:6.1%}  {row['name'][:90]}")
    rest = table[MOST_LINES:]
    if rest:
        ms, share = (sum(row[key] for row in rest) for key in ("ms", "share"))
        lines.append(
            f"{ms:10.2f} {sum(r['calls'] for r in rest):7} {share:6.1%}  {len(rest)} others"
        )
    return lines
