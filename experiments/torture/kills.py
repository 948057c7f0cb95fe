"""Real runs that are killed, preempted or left without disk space, and continue.

A run is a process of `python -m experiments.train`. A fault hits it while a checkpoint is being
written, or at a random moment; the same command continues it, until it finishes. What it has kept
is compared with a run that was never interrupted: after each fault at the last checkpoint, and at
the end.

A full disk is a limit on the size of files (RLIMIT_FSIZE, set from outside by `prlimit`): each
write beyond it fails with EFBIG, as on a full disk with ENOSPC. It needs no root and no file system
of its own. The next process has no limit.
"""

import contextlib
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from asyppo_jax.runs.checkpoint import saved_steps
from asyppo_jax.runtime.paths import checkpoint_directory
from experiments.torture.compare import lost_bits

FAULTS = ("SIGKILL", "SIGTERM", "full disk")
STEPS = 8
END_S = 20.0  # the longest time from SIGTERM to the end of the process
_EVERY = 2  # steps from checkpoint to checkpoint
_WRITE_S = 0.3  # about the time that a checkpoint of the default config takes to write
_LARGEST_FILE = 2_000_000  # bytes; the limit of a full disk is smaller
_HUNG_S = 300.0
_NO_CHECKPOINT = 0


@dataclass(frozen=True)
class Hit:
    """A fault in a run, and what it led to."""

    fault: str  # of `FAULTS`
    writing: bool  # whether a checkpoint was being written
    step: int  # of the last checkpoint after it; 0: none
    status: int  # of the process; minus the signal that ended it
    seconds: float  # from the fault to the end of the process
    lost_bits: int  # at that checkpoint, and for a run's last fault also at the run's end
    complaint: str  # a traceback, a hung process or a late end; "" if there is none


class TortureError(Exception):
    """A run that no fault hit did not finish, or is not repeatable; the message has its output."""


@dataclass
class _Process:
    """A run's process, whose output is read in a thread."""

    process: subprocess.Popen[str]
    thread: threading.Thread
    lines: list[str]

    def wait(self) -> tuple[int, str]:
        """Its exit status and output; it is killed after `_HUNG_S`."""
        try:
            status = self.process.wait(_HUNG_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.lines.append(f"the process did not end within {_HUNG_S:.0f} s")
            status = 1
        self.thread.join()
        return status, "".join(self.lines)


class Torture:
    """Runs of a config below `directory`, and faults in them; `report` prints what happens."""

    def __init__(
        self, config: str, seed: int, directory: Path, report: Callable[[str], None]
    ) -> None:
        self.hits: list[Hit] = []
        self._config = config
        self._seed = seed
        self._directory = directory
        self._report = report
        self._reference = directory / "reference"
        self._aimed: list[bool] = []  # whether a fault was to hit while a checkpoint is written
        self._duration = 0.0
        self._runs = 0

    def run(self, count: int) -> list[Hit]:
        """Hits runs `count` times; returns what each fault led to."""
        self._rehearse()
        since, workdir = 0, self._next_workdir()
        while len(self.hits) < count:
            if not self._hit_once(workdir):  # it finished before the moment of the fault
                self._compare_end(workdir, since)
                since, workdir = len(self.hits), self._next_workdir()
        if since < len(self.hits):
            self._finish(workdir)
            self._compare_end(workdir, since)
        return self.hits

    def _rehearse(self) -> None:
        """Two runs without a fault: they are equal, and the second one's time is typical."""
        every_step = ("--config.checkpoint.every=1", f"--config.checkpoint.keep={STEPS}")
        self._finish(self._reference, *every_step)
        workdir, started = self._directory / "rehearsal", time.monotonic()
        self._finish(workdir)
        self._duration = time.monotonic() - started
        if lost := lost_bits(workdir, self._reference):
            raise TortureError(f"two runs without a fault differ in {lost} bits")
        self._report(f"two runs without a fault are equal; one takes {self._duration:.0f} s")

    def _next_workdir(self) -> Path:
        self._runs += 1
        return self._directory / f"run_{self._runs}"

    def _start(self, workdir: Path, *more: str) -> _Process:
        command = [
            *(sys.executable, "-m", "experiments.train", f"--config={self._config}"),
            *(f"--config.num_steps={STEPS}", f"--config.checkpoint.every={_EVERY}"),
            *("--config.log.rollouts_every=3", f"--workdir={workdir}"),
            *(f"--compile_cache={self._directory / 'compiled'}", *more),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines: list[str] = []
        output = process.stdout
        assert output is not None
        thread = threading.Thread(target=lambda: lines.extend(output))
        thread.start()
        return _Process(process, thread, lines)

    def _finish(self, workdir: Path, *more: str) -> None:
        status, output = self._start(workdir, *more).wait()
        if status:
            raise TortureError(f"{workdir} ended with status {status}:\n{output}")

    def _hit_once(self, workdir: Path) -> bool:
        """Starts a process and hits it; False if it finished before."""
        aimed = 2 * sum(hit.writing for hit in self.hits) <= len(self.hits)
        number = self._aimed.count(aimed)
        fault = FAULTS[number % len(FAULTS)]
        rng = random.Random(f"{self._seed} {aimed} {number} {self._runs}")
        started, run = time.time(), self._start(workdir)
        unfinished = partial(_unfinished, Path(checkpoint_directory(workdir)), started)
        if aimed:
            reached = _wait_for_write(run.process, unfinished, rng)
        else:
            reached = _is_running_after(run.process, rng.uniform(0, self._duration))
        if not reached:
            status, output = run.wait()
            if status:
                raise TortureError(f"{workdir} ended with status {status}:\n{output}")
            return False
        at = time.monotonic()
        _apply(fault, run.process, rng)
        writing = bool(unfinished())
        self._aimed.append(aimed)
        status, output = run.wait()
        seconds = time.monotonic() - at
        step = max(saved_steps(str(workdir)), default=_NO_CHECKPOINT)
        lost = lost_bits(workdir, self._reference, step) if step else 0
        complaint = find_complaint(fault, status, output, seconds)
        if complaint:
            name = f"output_of_{len(self.hits) + 1}.txt"
            (self._directory / name).write_text(output)
        self.hits.append(Hit(fault, writing, step, status, round(seconds, 2), lost, complaint))
        when = "while a checkpoint was written" if writing else "at a random moment"
        self._report(
            f"{len(self.hits)}: {fault} {when}: status {status} after {seconds:.1f} s, last "
            f"checkpoint {step}, {lost} bits lost{complaint and ', '}{complaint}"
        )
        return True

    def _compare_end(self, workdir: Path, since: int) -> None:
        """Compares a finished run; what is lost counts for its last fault."""
        if since == len(self.hits):
            return
        last = self.hits[-1]
        lost = last.lost_bits + lost_bits(workdir, self._reference)
        self.hits[-1] = replace(last, lost_bits=lost)
        self._report(f"{workdir.name} finished after {len(self.hits) - since} faults: {lost} lost")


def _apply(fault: str, process: subprocess.Popen[str], rng: random.Random) -> None:
    if fault == "full disk":
        limit = rng.choice((0, rng.randrange(_LARGEST_FILE)))
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, hard))
    else:
        process.send_signal(signal.Signals[fault])


def _unfinished(checkpoints: Path, since: float) -> set[str]:
    """The temporary names of checkpoints that were being written after a time.

    Those that an earlier process has left are older.
    """
    names = set()
    for path in checkpoints.glob("*tmp*"):
        with contextlib.suppress(FileNotFoundError):  # it was finished just now
            if path.stat().st_mtime > since:
                names.add(path.name)
    return names


def _wait_for_write(
    process: subprocess.Popen[str], unfinished: Callable[[], set[str]], rng: random.Random
) -> bool:
    """Returns somewhere in the middle of writing a checkpoint; False if the process ended."""
    seen, skipped = set(), rng.randrange(2)
    while process.poll() is None:
        now = unfinished()
        new, seen = now - seen, now
        if new and skipped:
            skipped -= 1
        elif new:
            time.sleep(rng.uniform(0, _WRITE_S))
            if new & unfinished():
                return True
        time.sleep(0.0005)
    return False


def _is_running_after(process: subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def find_complaint(fault: str, status: int, output: str, seconds: float) -> str:
    """What is wrong with the end of a process after a fault; "" if nothing is."""
    for sign in ("Traceback (most recent call last)", "Exception ignored", "did not end within"):
        if sign in output:
            return f"{sign}: {' | '.join(output.strip().splitlines()[-3:])}"
    allowed = {
        "SIGKILL": (-signal.SIGKILL,),
        # Before the run has handlers, the signal itself ends the process.
        "SIGTERM": (128 + signal.SIGTERM, -signal.SIGTERM, 0),
        "full disk": (0, 1),
    }
    if status not in allowed[fault]:
        return f"status {status}: {' | '.join(output.strip().splitlines()[-3:])}"
    if fault == "full disk" and status and not output.strip().splitlines()[-1].startswith("error"):
        return f"no sentence at its end: {' | '.join(output.strip().splitlines()[-3:])}"
    if fault == "SIGTERM" and seconds > END_S:
        return f"it ended {seconds:.0f} s after SIGTERM"
    return ""
