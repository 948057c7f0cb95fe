"""Does what is left of a study, and says how far it is."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.main import command_line
from experiments.study.earlier import Earlier
from experiments.study.results import (
    Status,
    read_status,
    write_results,
    write_status,
    write_study,
)
from experiments.study.runner import Remaining, do_runs, duration
from experiments.study.study import Study, StudyRun


def run_study(
    study: Study,
    runs: Sequence[StudyRun],
    workdir: Path,
    jobs: int,
    earlier: Mapping[StudyRun, Earlier] | None = None,
) -> list[str]:
    """Does what is left of a study and writes its results; returns a sentence per failed run.

    Of a run that `earlier` has, that is the result, whatever `workdir` has.
    """
    earlier = earlier or {}
    states = _states(runs, workdir, earlier)
    elsewhere = {run: ended.rows for run, ended in earlier.items()}
    write_study(study, runs, workdir)
    write_results(study, runs, workdir, elsewhere)
    remaining, failures = Remaining(jobs), []
    for run, status in states.items():
        if status.state == "finished" and run not in earlier:
            remaining.add(run, status.seconds)
    left = [run for run in runs if states[run].state in ("left", "failed")]
    print(f"{summary(states.values())}; {jobs} at a time{_time_left(remaining, left)}", flush=True)

    written = [time.monotonic(), 0.0]  # when results.csv was written, and how long that took

    def done(run: StudyRun, status: Status, reply: dict[str, Any]) -> None:
        write_status(run, workdir, status)
        left.remove(run)
        began = time.monotonic()
        # It reads the files of all runs, so in a large study not after each of them.
        if not left or began - written[0] > 20 * written[1]:
            write_results(study, runs, workdir, elsewhere)
            written[:] = time.monotonic(), time.monotonic() - began
        if status.state == "failed":
            failures.append(f"{run.name} failed: {status.message}")
        else:
            remaining.add(run, status.seconds)
        said = f": {status.message}" if status.message else ""
        print(
            f"[{len(runs) - len(left)}/{len(runs)}] {run.name}: {status.state} in "
            f"{duration(status.seconds)}{said}{_time_left(remaining, left)}",
            flush=True,
        )

    if left:
        do_runs(list(left), workdir, min(jobs, len(left)), study.threads, done)
    print(f"results  {workdir / 'results.csv'}")
    print(f"then     {command_line('report')} --study={workdir}")
    return failures


def summary(states: Iterable[Status]) -> str:
    """How many runs are in which state."""
    counts = Counter(status.state for status in states)
    parts = [f"{counts[s]} {s}" for s in ("finished", "diverged", "failed", "left") if counts[s]]
    return f"{counts.total()} runs: {', '.join(parts)}"


def _time_left(remaining: Remaining, left: Sequence[StudyRun]) -> str:
    seconds = remaining.seconds(left)
    return f"; {len(left)} left, about {duration(seconds)}" if left and seconds else ""


def _states(
    runs: Sequence[StudyRun], workdir: Path, earlier: Mapping[StudyRun, Earlier]
) -> dict[StudyRun, Status]:
    return {
        run: earlier[run].status if run in earlier else read_status(run, workdir) for run in runs
    }


def listing(
    runs: Sequence[StudyRun], workdir: Path, earlier: Mapping[StudyRun, Earlier] | None = None
) -> str:
    """A line per run with its state, in the order in which they start."""
    states = _states(runs, workdir, earlier or {})
    lines = []
    for run, status in states.items():
        file, state = workdir / run.folder / "metrics.jsonl", status.state
        if state == "left" and file.is_file():
            steps = file.read_bytes().count(b"\n") - 1  # without step 0
            state = f"step {steps} of {run.config.num_steps}"
        lines.append(f"{state:>16}  {run.name}{f': {status.message}' if status.message else ''}")
    return "\n".join([*lines, summary(states.values())])
