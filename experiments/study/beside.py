"""The same runs in the study's workers and as one process per run, side by side."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asyppo_jax.config import ConfigError
from experiments.study.results import Status
from experiments.study.runner import pool_of_workers, serve
from experiments.study.study import Study, StudyRun, changed_settings

_CONFIG = """\
from asyppo_jax.config import default_config


def get_config():
    config = default_config()
    config.update_from_flattened_dict({changes!r})
    return config
"""


def beside(study: Study, runs: Sequence[StudyRun], workdir: Path, jobs: int) -> str:
    """Does each run twice and returns the rates of both ways, which take turns.

    The machine may be busy with other work, so a round of `jobs` settings, all seeds of each, is
    done one way and then the other. Compilations are cached on disk before: each setting is run
    once by each way, untimed. The workers keep their programs from round to round, as in a study.

    Raises:
        ConfigError: a run failed.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    by_setting: dict[tuple[str, str, str], list[StudyRun]] = {}
    for run in runs:
        by_setting.setdefault(run.setting, []).append(run)
    groups = list(by_setting.values())
    for group in groups:
        _alone(group[0], workdir / "warm")
    with pool_of_workers(1, study.threads) as workers:
        _shared(workers, [group[0] for group in groups], workdir / "warm_shared", study.threads)
    seconds, cpu = {"shared": 0.0, "alone": 0.0}, {"shared": 0.0, "alone": 0.0}
    with pool_of_workers(jobs, study.threads) as workers:
        for start in range(0, len(groups), jobs):
            turn = [run for group in groups[start : start + jobs] for run in group]
            began = time.perf_counter()
            cpu["shared"] += _shared(workers, turn, workdir / "shared", study.threads)
            seconds["shared"] += time.perf_counter() - began
            began = time.perf_counter()
            cpu["alone"] += sum(_alone(run, workdir / "alone") for run in turn)
            seconds["alone"] += time.perf_counter() - began
            print(f"{min(start + jobs, len(groups))} of {len(groups)} settings", file=sys.stderr)
    names = {"shared": f"study, {jobs} at a time", "alone": "one process per run"}
    lines = [
        f"{names[way]:22} {3600 * len(runs) / seconds[way]:7.1f} runs per hour, "
        f"{seconds[way] / len(runs):6.1f} s and {cpu[way] / len(runs):6.1f} CPU seconds per run"
        for way in names
    ]
    return "\n".join(
        [
            f"{len(runs)} runs of {len(groups)} settings; load average {os.getloadavg()[0]:.1f}",
            *lines,
            f"ratio of rates {seconds['alone'] / seconds['shared']:.2f}, "
            f"of CPU seconds {cpu['alone'] / cpu['shared']:.2f}",
        ]
    )


def _shared(workers: Any, runs: Sequence[StudyRun], workdir: Path, threads: int) -> float:
    """Does the runs in workers; returns their CPU seconds."""
    total = 0.0

    def done(run: StudyRun, status: Status, reply: dict[str, Any]) -> None:
        nonlocal total
        if status.state == "failed":
            raise ConfigError(f"the run {run.name} failed: {status.message}")
        total += reply["cpu_seconds"]

    serve(workers, list(runs), workdir, threads, done)
    return total


def _alone(run: StudyRun, workdir: Path) -> float:
    """Does a run as `python -m experiments.train`; returns its CPU seconds."""
    folder = workdir / run.folder
    folder.mkdir(parents=True)
    file = folder / "file.py"
    file.write_text(_CONFIG.format(changes=changed_settings(run.config)))
    command = [sys.executable, "-m", "experiments.train", f"--config={file}", f"--workdir={folder}"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and "step" not in (folder / "log.txt").read_text():
        raise ConfigError(f"the run {run.name} failed alone; see {folder / 'log.txt'}")
    return used.ru_utime + used.ru_stime
