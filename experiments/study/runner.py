"""Does the runs of a study in worker processes, and reports what is done and what is left."""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asyppo_jax.config import ConfigError
from experiments.study.results import Status
from experiments.study.study import StudyRun

Done = Callable[[StudyRun, Status, dict[str, Any]], None]


@dataclass(eq=False)
class Worker:
    """A process that does runs, see `worker`; `run` is the one that it does now."""

    process: subprocess.Popen[bytes]
    run: StudyRun | None = None
    traced: set[tuple[str, str, str]] = field(default_factory=set)  # settings of its runs so far

    def start(self, run: StudyRun, workdir: Path) -> None:
        """Gives the process a run; one that has died is noticed by its end of output."""
        self.run = run
        self.traced.add(run.setting)
        request = {"config": asdict(run.config), "workdir": str(workdir / run.folder)}
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def reply(self) -> dict[str, Any]:
        """How its run ended."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        status = self.process.wait()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return {"state": "failed", "message": f"its process ended {how}", "seconds": 0.0}

    def end(self) -> None:
        """Kills the process and the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start_worker(threads: int) -> Worker:
    """A new worker, which computes with so many threads.

    It has its own session, so that Ctrl-C reaches the parent alone, which then ends its workers.
    """
    # XLA sizes its pools of threads by NPROC. Unlike a smaller set of allowed cores, it lets the
    # operating system move the process; unlike XLA_FLAGS, it leaves the compile cache usable.
    environment = os.environ | {"NPROC": str(threads)}
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.study.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    return Worker(process)


def do_runs(runs: Sequence[StudyRun], workdir: Path, jobs: int, threads: int, done: Done) -> None:
    """Does all runs, `jobs` at a time; calls `done` with each and how it ended."""
    with pool_of_workers(jobs, threads) as workers:
        serve(workers, list(runs), workdir, threads, done)


@contextlib.contextmanager
def pool_of_workers(jobs: int, threads: int) -> Iterator[list[Worker]]:
    """Worker processes, which end with the block."""
    workers: list[Worker] = []
    try:
        for _ in range(jobs):
            workers.append(start_worker(threads))
        yield workers
    finally:
        for worker in workers:
            worker.end()


def serve(
    workers: list[Worker], left: list[StudyRun], workdir: Path, threads: int, done: Done
) -> None:
    """Hands out runs until all have ended; a worker whose process died is replaced."""
    with selectors.DefaultSelector() as selector:

        def hand_out(worker: Worker) -> None:
            if left:
                worker.start(take_next(left, worker, workers), workdir)
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]

        for worker in workers:
            hand_out(worker)
        while selector.get_map():
            for key, _ in selector.select():
                worker: Worker = key.data
                selector.unregister(key.fileobj)
                reply, run = worker.reply(), worker.run
                assert run is not None
                if worker.process.poll() is not None:
                    workers[workers.index(worker)] = worker = start_worker(threads)
                hand_out(worker)  # first, so that it works while the results are written
                done(run, Status(reply["state"], reply["message"], reply["seconds"]), reply)


def take_next(left: list[StudyRun], worker: Worker, workers: Sequence[Worker]) -> StudyRun:
    """Takes the worker's next run from those that are left, in their order but for its programs.

    Of the runs of the first seed that is left, it takes one whose programs this worker has traced;
    else one whose programs no worker has, and else one of another worker's.
    """
    window = [run for run in left if run.seed == left[0].seed]
    others = {setting for w in workers if w is not worker for setting in w.traced}
    preferred = [
        *(run for run in window if run.setting in worker.traced),
        *(run for run in window if run.setting not in others),
        *window,
    ]
    left.remove(preferred[0])
    return preferred[0]


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Raises `ConfigError` if another program is doing the runs of this directory."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another program is doing the runs of {workdir}; wait for it, or stop it"
            ) from None
        yield


class Remaining:
    """How long the runs that are left will take, by the seconds of those that have ended."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._seconds: dict[tuple[str, str, str], list[float]] = {}

    def add(self, run: StudyRun, seconds: float) -> None:
        """Notes how long a run took."""
        self._seconds.setdefault(run.setting, []).append(seconds)

    def seconds(self, left: Sequence[StudyRun]) -> float | None:
        """None: no run has ended yet. Settings without one count as the mean of the others."""
        means = {setting: sum(x) / len(x) for setting, x in self._seconds.items()}
        if not means:
            return None
        mean = sum(means.values()) / len(means)
        return sum(means.get(run.setting, mean) for run in left) / self._jobs


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
