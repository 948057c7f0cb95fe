"""Faults and bad input on purpose: nothing may be lost, and no traceback may be shown.

    python -m experiments.torture --kills=30 --seed=0 [--config=tiny_test] [--json]
    python -m experiments.torture --fuzz=2000 --seed=0 [--json]

`--kills` hits real runs by SIGKILL, SIGTERM and a full disk, at least half of them while a
checkpoint is being written (see `kills`). `--fuzz` reads random settings, flags, files and models
(see `fuzz`). Both print rows of one table. `--json` prints all results as the last line. The exit
status is 1 if a bit was lost, or if anything ended otherwise than in a success or one sentence.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.torture.fuzz import Outcome
    from experiments.torture.kills import Hit


@dataclass(frozen=True)
class Row:
    """One row of the table: what was done, how often, and what it did."""

    fault: str
    trials: int
    lost_bits: int | None  # None: nothing that could be lost
    tracebacks: int  # also hung processes, late ends and messages of several lines
    note: str


def rows_of_hits(hits: Sequence["Hit"]) -> list[Row]:
    """A row for each fault, while a checkpoint was written and at other moments."""
    rows = []
    kinds = {(hit.fault, hit.writing): None for hit in hits}
    for fault, writing in sorted(kinds, key=lambda kind: (kind[0], not kind[1])):
        chosen = [hit for hit in hits if (hit.fault, hit.writing) == (fault, writing)]
        when = "while a checkpoint is written" if writing else "at a random moment"
        rows.append(
            Row(
                fault=f"{fault} {when}",
                trials=len(chosen),
                lost_bits=sum(hit.lost_bits for hit in chosen),
                tracebacks=sum(bool(hit.complaint) for hit in chosen),
                note=f"ends within {max(hit.seconds for hit in chosen):.1f} s",
            )
        )
    return rows


def rows_of_outcomes(outcomes: Sequence["Outcome"]) -> list[Row]:
    """A row for each kind of fuzzed input."""
    rows = []
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        chosen = [outcome.result for outcome in outcomes if outcome.kind == kind]
        counts = Counter(chosen)
        note = f"{counts['refused']} refused, {counts['ok']} accepted"
        rows.append(Row(f"mutated {kind}", len(chosen), None, counts["fault"], note))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, with their sums."""
    known = [row.lost_bits for row in rows if row.lost_bits is not None]
    lost = sum(known) if known else None
    trials, tracebacks = (sum(getattr(row, x) for row in rows) for x in ("trials", "tracebacks"))
    total = Row("all", trials, lost, tracebacks, "")
    lines = ["| fault | trials | lost bits | tracebacks | |", "|---|---|---|---|---|"]
    for row in [*rows, total]:
        bits = "-" if row.lost_bits is None else f"{row.lost_bits:,}"
        lines.append(f"| {row.fault} | {row.trials} | {bits} | {row.tracebacks} | {row.note} |")
    return "\n".join(lines)


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.torture", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--kills", type=int, default=0, help="number of faults in runs")
    parser.add_argument("--fuzz", type=int, default=0, help="number of bad inputs")
    parser.add_argument("--seed", type=int, default=0, help="of moments, faults and inputs")
    parser.add_argument("--config", default="tiny_test", help="the config of the runs")
    parser.add_argument("--json", action="store_true", help="print all results as the last line")
    options = parser.parse_args()
    if min(options.kills, options.fuzz) < 0 or options.kills + options.fuzz == 0:
        parser.error("give --kills=N or --fuzz=N, at least 1")
    return options


def main() -> None:
    options = _read_options()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # Imported late, so that --help is fast and JAX sees the platform.
    from experiments.torture.fuzz import fuzz
    from experiments.torture.kills import Torture, TortureError

    def report(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    hits: list[Hit] = []
    if options.kills:
        with tempfile.TemporaryDirectory(prefix="asyppo_torture_") as directory:
            try:
                torture = Torture(options.config, options.seed, Path(directory), report)
                hits = torture.run(options.kills)
            except TortureError as error:
                sys.exit(f"error: {error}")
    outcomes = fuzz(options.fuzz, options.seed)
    for outcome in outcomes:
        if outcome.result == "fault":
            report(f"input {outcome.index}, {outcome.kind} {outcome.change!r}: {outcome.text}")
    rows = rows_of_hits(hits) + rows_of_outcomes(outcomes)
    print(table(rows))
    if options.json:
        results = {"kills": hits, "fuzz": outcomes, "table": rows}
        print(json.dumps({name: [asdict(x) for x in entry] for name, entry in results.items()}))
    sys.exit(any(row.lost_bits or row.tracebacks for row in rows))


if __name__ == "__main__":
    main()
