"""A process that does runs one after the other, for `experiments.study`; it is not called by hand.

It reads one JSON line per run from its standard input and answers each with one line. It ends when
its input does, so that no worker survives the program that started it, however that one ended. Its
runs share imports, compiled programs and the processes that score answers.
"""

import contextlib
import json
import os
import queue
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from asyppo_jax.config import Config, UserError, from_dict
from experiments.command_line import use_compile_cache


def main() -> None:
    # Replies go to a descriptor of their own: libraries write to standard output.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    use_compile_cache(None)
    runner = Runner()
    while True:
        request = requests.get()
        reply = runner.run(from_dict(request["config"]), Path(request["workdir"]))
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _read(requests: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os._exit(1)  # at once, whatever the main thread does


class Runner:
    """Does runs and keeps the reward workers of the last one for the next."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._cpu_seconds = 0.0

    def run(self, config: Config, workdir: Path) -> dict[str, Any]:
        """Trains, or resumes, with the output in WORKDIR/log.txt; returns how it ended."""
        from asyppo_jax.runs.metrics import NonFiniteError
        from asyppo_jax.train import train

        workdir.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        state, message = "finished", ""
        with (workdir / "log.txt").open("a") as log, _output_to(log):
            try:
                train(config, str(workdir), pool=self._open_pool(config))
            except NonFiniteError as error:
                state, message = "diverged", str(error)
            except Exception as error:  # recorded by name; the study's other runs go on
                traceback.print_exc()
                named = f"{type(error).__name__}: " if not isinstance(error, UserError) else ""
                state, message = "failed", f"{named}{' '.join(str(error).split())}"
        return {
            "state": state,
            "message": message,
            "seconds": time.perf_counter() - started,
            "cpu_seconds": self._new_cpu_seconds(),
        }

    def _new_cpu_seconds(self) -> float:
        """Those since the last call, at first since the process began, with ended children."""
        before = self._cpu_seconds
        used = (
            resource.getrusage(resource.RUSAGE_CHILDREN),
            resource.getrusage(resource.RUSAGE_SELF),
        )
        self._cpu_seconds = sum(x.ru_utime + x.ru_stime for x in used)
        return self._cpu_seconds - before

    def _open_pool(self, config: Config) -> Any:
        from asyppo_jax.tasks.rewards import RewardPool

        if self._pool is None or self._pool.config != config.reward:
            if self._pool is not None:
                self._pool.close()
                self._pool = None  # also if the next one cannot be opened
            self._pool = RewardPool(config.reward)
        return self._pool


@contextlib.contextmanager
def _output_to(file: Any):
    with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


if __name__ == "__main__":
    main()
