"""The parent's side of one worker process: non-blocking pipes, a deadline, and a way to kill it."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("worker.py")
REAP_LIMIT = 10.0  # seconds; a process stuck in the kernel is left to the operating system


@dataclass(eq=False)
class WorkerProcess:
    """A process that is starting (not ready), idle, or grading the answer with index `row`."""

    process: subprocess.Popen[bytes]
    requests: int  # the file descriptor of its standard input; writes never block
    replies: int  # the file descriptor of its standard output
    deadline: float  # on the monotonic clock; for the start or for the current answer
    ready: bool = False
    row: int | None = None
    unsent: bytes = b""
    received: bytes = b""

    @property
    def idle(self) -> bool:
        return self.ready and self.row is None

    def send(self, message: Any, time_limit: float) -> None:
        """Sets the deadline and writes what fits into the pipe; raises `OSError` if it is dead."""
        self.deadline = time.monotonic() + time_limit
        self.unsent = json.dumps(message, default=str).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes more of the unsent bytes; raises `OSError` if the process is dead."""
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[os.write(self.requests, self.unsent) :]

    def receive(self) -> dict[str, Any] | None:
        """The reply if it is complete, else None; raises `EOFError` if the process is dead."""
        chunk = os.read(self.replies, 1 << 16)
        if not chunk:
            raise EOFError
        self.received += chunk
        if not self.received.endswith(b"\n"):
            return None
        line, self.received = self.received, b""
        return json.loads(line)

    def kill(self) -> None:
        """Kills the process and its children at once; call `reap` afterwards."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Kills the process, waits until it has ended, and closes the pipes."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(REAP_LIMIT)


def start_worker(setup: dict[str, Any], time_limit: float) -> WorkerProcess:
    """A new worker, which must load its function and report ready within `time_limit` seconds.

    It is a new interpreter, not a fork, so no JAX thread is copied and the main module of the run
    is not imported again. It has its own session, so that Ctrl-C in the terminal does not reach it.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        # A reward function that uses JAX must not occupy the accelerator of the run.
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.stdin is not None and process.stdout is not None
    requests, replies = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(requests, False)
    worker = WorkerProcess(process, requests, replies, deadline=time.monotonic() + time_limit)
    with contextlib.suppress(OSError):  # already dead: `wait_for_workers` will notice
        worker.send({"path": [str(entry) for entry in sys.path]} | setup, time_limit)
    return worker


def wait_for_workers(workers: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    """The workers with something to read; waits until there is one or the next deadline passes."""
    next_deadline = min((w.deadline for w in workers if not w.idle), default=time.monotonic())
    # `poll`, because `select` does not support file descriptors above 1,023.
    with selectors.PollSelector() as selector:
        for worker in workers:
            selector.register(worker.replies, selectors.EVENT_READ, worker)
            if worker.unsent:
                selector.register(worker.requests, selectors.EVENT_WRITE, worker)
        events = selector.select(max(0.0, next_deadline - time.monotonic()))
    for key, _ in events:
        if key.fd == key.data.requests:
            with contextlib.suppress(OSError):  # dead: reading its replies will raise
                key.data.flush()
    return [key.data for key, _ in events if key.fd == key.data.replies]
