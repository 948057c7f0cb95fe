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
from pathlib import Path

from absl import app, flags

from asyppo_jax.config import ConfigError, UserError
from experiments.command_line import parse_flags, refuse_words, stop
from experiments.study.earlier import read_earlier
from experiments.study.progress import listing, run_study
from experiments.study.runner import locked
from experiments.study.study import read_study, runs_of

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


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
