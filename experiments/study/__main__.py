"""Does the runs of a study: tasks x actors x methods x seeds.

    python -m experiments.study --study=configs/studies/NAME.py --workdir=DIR [--jobs=n] [--list]
        [--earlier=DIR]

Each run trains in a directory of its own, DIR/runs/TASK/ACTOR/METHOD/seed_N. A command that was
killed and is started again skips what is finished and resumes what is not. DIR/results.csv has one
line per run, step and metric; see experiments/report. --list shows how far each run is and ends.
Runs in the results.csv of --earlier, done on another machine, are not done again.
--beside does the same runs also as one process per run, and prints how much faster the study is.
--cost=n does n steps of each setting and prints their seconds and memory side by side.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from asyppo_jax.config import ConfigError, UserError
from experiments.command_line import parse_flags, refuse_words, stop
from experiments.main import command_line
from experiments.study.earlier import Earlier, read_earlier
from experiments.study.results import (
    Status,
    read_status,
    write_results,
    write_status,
    write_study,
)
from experiments.study.runner import Remaining, do_runs, duration, locked
from experiments.study.study import Study, StudyRun, read_study, runs_of

_STUDY = flags.DEFINE_string("study", None, "The study's file, or its name in configs/studies/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The directory of runs and results.")
_JOBS = flags.DEFINE_integer(
    "jobs", 0, "Runs at a time; 0: the cores divided by the study's threads.", lower_bound=0
)
_LIST = flags.DEFINE_bool("list", False, "Show the state of each run and end.")
_EARLIER = flags.DEFINE_string(
    "earlier", None, "A directory with results.csv and study.json of runs that are done."
)
_BESIDE = flags.DEFINE_bool("beside", False, "Measure the study against one process per run.")
_COST = flags.DEFINE_integer(
    "cost", 0, "Print the cost of each setting, measured in so many steps.", lower_bound=0
)


def main(argv: list[str]) -> None:
    try:
        refuse_words(argv)
        for name in ("study", "workdir"):
            if not flags.FLAGS[name].value:
                raise ConfigError(f"--{name} is missing")
        study, workdir = read_study(_STUDY.value or ""), Path(_WORKDIR.value or "")
        runs = runs_of(study)
        earlier = read_earlier(study, runs, Path(_EARLIER.value)) if _EARLIER.value else {}
        if _LIST.value:
            print(listing(runs, workdir, earlier))
            return
        jobs = _JOBS.value or max(1, len(os.sched_getaffinity(0)) // study.threads)
        with locked(workdir):
            if _BESIDE.value:
                from experiments.study.beside import beside

                print(beside(study, runs, workdir / "beside", jobs))
                return
            if _COST.value:
                from experiments.study.cost import cost

                print(cost(study, runs, workdir / "cost", _COST.value))
                return
            failures = run_study(study, runs, workdir, jobs, earlier)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        stop("\nstopped; the same command goes on from the last checkpoints of its runs")
    if failures:
        print("\n".join(f"error: the run {line}" for line in failures), file=sys.stderr)
        sys.exit(1)


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


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
