"""Time per operation of a run, from a trace by jax's profiler."""

import glob
import os
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax

MOST_LINES = 25
# Operations in a CPU's trace that contain others; skipped, because the inner ones are listed too.
_OUTER = {"while", "call", "conditional"}


def profiled(run: Callable[[], Any], directory: str) -> list[dict[str, Any]]:
    """Milliseconds, calls and share of each operation of one run, longest first.

    The trace is written to `directory`. Operations whose names differ only by a number at the end
    are summed, so that all layers count together. "(idle)" is the time between the first and the
    last operation in which no operation ran. On a CPU, operations of several threads overlap, so
    there is no such row.
    """
    with jax.profiler.trace(directory):
        run()
    newest = max(glob.glob(f"{directory}/**/*.xplane.pb", recursive=True), key=os.path.getmtime)
    data: Any = jax.profiler.ProfileData.from_file(newest)
    spans = [event for plane in data.planes for event in _operations(plane)]
    return summary(spans, on_device=jax.default_backend() != "cpu")


def _operations(plane: Any) -> list[tuple[str, float, float]]:
    """(name, start, end) in nanoseconds of the operations of a device's streams or CPU threads."""
    operations = []
    on_device = plane.name.startswith("/device:")
    for line in plane.lines:
        if on_device and not (line.name.startswith("Stream") or line.name == "XLA Ops"):
            continue
        for event in line.events:
            kind = event.name.partition(".")[0]
            if on_device or (kind not in _OUTER and any(n == "hlo_op" for n, _ in event.stats)):
                end_ns = event.start_ns + event.duration_ns
                operations.append((event.name, event.start_ns, end_ns))
    return operations


def summary(spans: list[tuple[str, float, float]], *, on_device: bool) -> list[dict[str, Any]]:
    """Spans summed by name, with their share of the time from the first to the last operation."""
    if not spans:
        return []
    total, calls = defaultdict(float), defaultdict(int)
    for name, start, end in spans:
        kind = re.sub(r"[._]\d+$", "", name)
        total[kind] += end - start
        calls[kind] += 1
    elapsed = max(end for _, _, end in spans) - min(start for _, start, _ in spans)
    if on_device:
        total["(idle)"], calls["(idle)"] = elapsed - _busy_time(spans), 1
    names = sorted(total, key=lambda n: -total[n])
    return [
        {"name": n, "ms": 1e-6 * total[n], "calls": calls[n], "share": total[n] / elapsed}
        for n in names
    ]


def _busy_time(spans: list[tuple[str, float, float]]) -> float:
    busy, latest_end = 0.0, float("-inf")
    for _, start, end in sorted(spans, key=lambda span: span[1]):
        busy += max(0.0, end - max(start, latest_end))
        latest_end = max(latest_end, end)
    return busy


def describe_profile(table: list[dict[str, Any]]) -> list[str]:
    """The table as lines of text, the longest operations first."""
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
