"""Scores in parallel, in processes that can be killed: no grader can hang or stop a run."""

import importlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from asyppo_jax.config import ConfigError, RewardConfig
from asyppo_jax.tasks.rewards import graders
from asyppo_jax.tasks.rewards.process import WorkerProcess, start_worker, wait_for_workers

RewardFunction = Callable[[str, str, str], float]  # (problem, completion, answer) -> [0, 1]

# Why an answer has no valid reward: over its time limit; the grader raised or its process died;
# what it returned is no number in [0, 1].
REASONS = ("timeout", "crashed", "bad_score")
MAX_TIME_LIMIT = 86400.0  # seconds; the system's timers take no endless times
START_LIMIT = 120.0  # seconds to import what the reward function needs, on a busy machine

logger = logging.getLogger(__name__)


class Scores(NamedTuple):
    """The rewards of B answers, in their order."""

    rewards: np.ndarray  # [B] float32 in [0, 1]; 0 where not valid
    valid: np.ndarray  # [B] bool
    reasons: dict[str, int]  # the number of invalid answers for each of REASONS


def join_scores(parts: Sequence[Scores]) -> Scores:
    """The scores of several calls, in their order, as of one."""
    rewards, valid, reasons = zip(*parts, strict=True)
    counts = {name: sum(some[name] for some in reasons) for name in REASONS}
    return Scores(np.concatenate(rewards), np.concatenate(valid), counts)


class _Outcome(NamedTuple):
    score: float
    reason: str = ""  # one of REASONS, or empty: the score is valid
    detail: str = ""


def resolve_reward(name: str) -> RewardFunction:
    """The function of "math", "exact" or "module:function"; raises `ConfigError` in words."""
    wrong = f"config.reward.function is {name!r}"
    if name in ("math", "exact"):
        return getattr(graders, name)
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        raise ConfigError(f'{wrong}; give "math", "exact" or "module:function"')
    if module_name == "__main__":
        raise ConfigError(
            f"{wrong}, but worker processes cannot import the script that is run; "
            "move the function to a module of its own"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{wrong}, but its module cannot be imported ({error}); "
            "correct the name, or start where Python finds the module"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(
            f"{wrong}, but module {module_name!r} has no function {function_name!r}; "
            "correct the name or define it"
        )
    return cast(RewardFunction, function)


class RewardPool:
    """Worker processes that score answers, each within `config.time_limit` seconds.

    An answer over its limit costs its process, which is killed and replaced while the other workers
    go on; it alone has no valid reward. The clock of an answer runs from its sending to its reply;
    the start of a worker, imports included, does not count. "exact" cannot hang and needs no
    processes: it is scored in place.

    `score` may be called from any thread; `close` may be called from another thread meanwhile, and
    then `score` raises `RuntimeError`. After Ctrl-C in `score` the pool can be used again.
    """

    def __init__(self, config: RewardConfig) -> None:
        """Starts the workers and returns at once; raises `ConfigError` on a wrong setting."""
        if not 0 < config.time_limit <= MAX_TIME_LIMIT:
            raise ConfigError(
                f"config.reward.time_limit is {config.time_limit}; "
                f"it must be above 0 and at most {MAX_TIME_LIMIT:g} seconds"
            )
        if config.num_workers < 1:
            raise ConfigError(
                f"config.reward.num_workers is {config.num_workers}; it must be 1 or more"
            )
        self._function = resolve_reward(config.function)
        self._config = config
        self._workers: list[WorkerProcess] = []
        self._closed = False
        self._scoring = threading.RLock()  # held by `score` as long as it runs
        self._membership = threading.RLock()  # held to start a worker, and to kill them all
        self._fruitless_starts = 0  # since the last reply
        self._fill()

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills every worker and waits for their end. A second call does nothing."""
        with self._membership:
            self._closed = True
            for worker in self._workers:
                worker.kill()
        # A `score` in another thread sees its workers end, and ends too.
        with self._scoring:
            while self._workers:
                self._workers.pop().reap()

    def score(
        self, problems: Sequence[str], completions: Sequence[str], answers: Sequence[str]
    ) -> Scores:
        """The rewards of B completions, given their problems and reference answers.

        Raises:
            ValueError: the three sequences differ in length.
            RuntimeError: the pool is closed, or no worker can be started.
        """
        sizes = len(problems), len(completions), len(answers)
        if len(set(sizes)) > 1:
            raise ValueError(
                "problems, completions and answers have {}, {} and {} rows; give one of each "
                "for every answer".format(*sizes)
            )
        rows = list(zip(problems, completions, answers, strict=True))
        with self._scoring:
            if self._closed:
                raise RuntimeError("the reward pool is closed; open another one")
            if self._function is graders.exact:
                outcomes = [_Outcome(graders.exact(*row)) for row in rows]
            else:
                outcomes = self._score_in_workers(rows)
        return _collect(outcomes)

    def _score_in_workers(self, rows: list[tuple[str, str, str]]) -> list[_Outcome]:
        waiting = deque(range(len(rows)))
        outcomes: dict[int, _Outcome] = {}
        try:
            while len(outcomes) < len(rows):
                self._fill()
                self._hand_out(rows, waiting)
                for worker in wait_for_workers(self._workers):
                    self._receive(worker, outcomes)
                self._end_overdue(outcomes)
        finally:
            for worker in list(self._workers):  # only busy if something was raised
                if worker.row is not None:
                    self._drop(worker)
        self._fill()  # replacements start while the run goes on
        return [outcomes[i] for i in range(len(rows))]

    def _fill(self) -> None:
        """Starts workers until there are as many as there should be."""
        if self._function is graders.exact:
            return
        builtin = self._function is graders.math
        setup = {
            "function": f"{graders.__file__}:math" if builtin else self._config.function,
            "example": graders.MATH_EXAMPLE if builtin else None,
            "time_limit": self._config.time_limit,
        }
        while len(self._workers) < self._config.num_workers:
            with self._membership:
                if self._closed:
                    raise RuntimeError("the reward pool was closed while it scored")
                self._workers.append(start_worker(setup, START_LIMIT))

    def _hand_out(self, rows: list[tuple[str, str, str]], waiting: deque[int]) -> None:
        for worker in [w for w in self._workers if w.idle][: len(waiting)]:
            worker.row = waiting.popleft()
            try:
                worker.send(rows[worker.row], self._config.time_limit)
            except OSError:  # it died before, without an answer to blame
                waiting.appendleft(worker.row)
                worker.row = None
                self._lose_start(worker, "it ended by itself")

    def _receive(self, worker: WorkerProcess, outcomes: dict[int, _Outcome]) -> None:
        try:
            reply = worker.receive()
        except EOFError:
            self._lose(worker, "crashed", "its process died", outcomes)
            return
        if reply is None:
            return
        if "error" in reply:  # the same would happen to every worker
            raise RuntimeError(self._cannot_start(reply["error"]))
        if "ready" in reply:
            worker.ready = True
            return
        assert worker.row is not None
        outcomes[worker.row] = _outcome(reply)
        worker.row = None
        self._fruitless_starts = 0

    def _end_overdue(self, outcomes: dict[int, _Outcome]) -> None:
        now = time.monotonic()
        for worker in [w for w in self._workers if not w.idle and w.deadline <= now]:
            limit = self._config.time_limit if worker.ready else START_LIMIT
            self._lose(worker, "timeout", f"no reply in {limit:g} s", outcomes)

    def _lose(
        self, worker: WorkerProcess, reason: str, detail: str, outcomes: dict[int, _Outcome]
    ) -> None:
        """Drops a dead or overdue worker; the answer that it was busy with is invalid."""
        if worker.row is None:
            self._lose_start(worker, detail)
        else:
            outcomes[worker.row] = _Outcome(0.0, reason, detail)
            self._fruitless_starts = 0
            self._drop(worker)

    def _lose_start(self, worker: WorkerProcess, detail: str) -> None:
        self._drop(worker)
        self._fruitless_starts += 1
        if self._fruitless_starts > 2 * self._config.num_workers:
            raise RuntimeError(self._cannot_start(detail))

    def _drop(self, worker: WorkerProcess) -> None:
        worker.kill()
        self._workers.remove(worker)
        worker.reap()

    def _cannot_start(self, detail: str) -> str:
        return (
            f"no worker can run config.reward.function = {self._config.function!r} ({detail}); "
            "see that its module can be imported in a fresh Python"
        )


def _outcome(reply: dict[str, Any]) -> _Outcome:
    if "score" in reply:
        return _Outcome(reply["score"])
    ((reason, detail),) = reply.items()
    return _Outcome(0.0, reason, detail)


def _collect(outcomes: list[_Outcome]) -> Scores:
    """Arrays out of outcomes, and one line in the log if any answer has no valid reward."""
    counts = Counter(o.reason for o in outcomes if o.reason)
    if counts:
        row = next(i for i, o in enumerate(outcomes) if o.reason)
        logger.warning(
            "%d of %d answers have no valid reward (%s); the first, row %d: %s",
            counts.total(),
            len(outcomes),
            ", ".join(f"{counts[r]} {r}" for r in REASONS if counts[r]),
            row,
            outcomes[row].detail,
        )
    return Scores(
        rewards=np.array([o.score for o in outcomes], np.float32),
        valid=np.array([not o.reason for o in outcomes], np.bool_),
        reasons={reason: counts[reason] for reason in REASONS},
    )
