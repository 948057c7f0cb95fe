"""Parallel scoring in processes that can be killed, so that no grader can hang or crash a run."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from asyppo_jax.config import RewardConfig
from asyppo_jax.config.functions import function_name
from asyppo_jax.config.ranges import check_fields
from asyppo_jax.tasks.rewards import graders
from asyppo_jax.tasks.rewards.functions import RewardFunction, find_rewards, reward_functions
from asyppo_jax.tasks.rewards.process import WorkerProcess, start_worker, wait_for_workers

# Why an answer has no valid reward -> what to do. It ran over its time limit; the grader raised an
# error or its process died; the score is not a number in [0, 1].
FIXES = {
    "timeout": "make the function faster, or raise config.reward.time_limit",
    "crashed": "correct the function, or let it return 0 for an answer that it cannot read",
    "bad_score": "let the function return a number in [0, 1]",
}
REASONS = tuple(FIXES)
START_LIMIT = 120.0  # seconds for a worker to import the reward function; allows a busy machine

logger = logging.getLogger(__name__)


class Scores(NamedTuple):
    """The rewards of B answers, in the order of the answers."""

    rewards: np.ndarray  # [B] float32 in [0, 1]; 0 if invalid
    valid: np.ndarray  # [B] bool
    reasons: dict[str, int]  # number of invalid answers per entry of REASONS
    # [B] float32 of each of several reward functions; `rewards` is their weighted mean
    by_function: Mapping[str, np.ndarray] = {}
    # Of each answer what its grader says of it (`graders.Score`); {} if it says nothing.
    details: Sequence[Mapping[str, str]] = ()


def join_scores(parts: Sequence[Scores]) -> Scores:
    """The scores of several calls concatenated in order, as if from one call."""
    rewards, valid, reasons, by_function, details = zip(*parts, strict=True)
    counts = {reason: sum(of_call[reason] for of_call in reasons) for reason in REASONS}
    columns = {name: np.concatenate([x[name] for x in by_function]) for name in by_function[0]}
    joined = [answer for of_call in details for answer in of_call]
    return Scores(np.concatenate(rewards), np.concatenate(valid), counts, columns, joined)


class _Outcome(NamedTuple):
    scores: Sequence[float]  # one per reward function; empty if invalid
    reason: str = ""  # one of REASONS, or empty: the score is valid
    detail: str = ""
    details: Mapping[str, str] = {}


class RewardPool:
    """Worker processes that score answers, each within `config.time_limit` seconds.

    If an answer runs over its limit, its process is killed and replaced while the other workers
    continue; only that answer has no valid reward. The time of an answer runs from its request to
    its reply and does not include the start of a worker with its imports. "exact" cannot hang, so
    it runs in the calling process.

    `score` may be called from any thread. Another thread may call `close` at the same time; `score`
    then raises `RuntimeError`. After Ctrl-C in `score` the pool can be used again.
    """

    def __init__(
        self,
        config: RewardConfig,
        functions: RewardFunction | Sequence[RewardFunction] | None = None,
    ) -> None:
        """Starts the workers and returns at once; raises `ConfigError` for an invalid setting.

        `functions` replaces those that `config.function` names. They are sent to the workers with
        cloudpickle, so they may be defined in a notebook.
        """
        self._rewards = find_rewards(config, functions)
        self._in_process = [reward.function for reward in self._rewards] == [graders.exact]
        # With the names of given functions, as `train` records them.
        self.config = config
        if functions is not None:
            names = map(function_name, reward_functions(functions))
            self.config = replace(config, function=",".join(names))
        check_fields(self.config, "config.reward.")
        self._workers: list[WorkerProcess] = []
        self._closed = False
        self._scoring = threading.RLock()  # held while `score` runs
        self._membership = threading.RLock()  # held to start a worker, or to kill all of them
        self._failed_starts = 0  # since the last reply
        # Of the first answer without a reward in the latest `score`: what happened, and what to do
        # (one of `FIXES`); "" if all have one.
        self.failure = self.fix = ""
        self._fill()

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills all workers and waits until they have ended. A second call does nothing."""
        with self._membership:
            self._closed = True
            for worker in self._workers:
                worker.kill()
        # A `score` in another thread notices that its workers died, and returns.
        with self._scoring:
            while self._workers:
                self._workers.pop().reap()

    def score(
        self,
        problems: Sequence[str],
        completions: Sequence[str],
        answers: Sequence[str],
        records: Sequence[Mapping[str, Any]] | None = None,
    ) -> Scores:
        """The rewards of B completions, given their problems and reference answers.

        `records` are the columns of the problems' data, for functions with a parameter `record`.

        Raises:
            ValueError: the sequences differ in length.
            RuntimeError: the pool is closed, or no worker can be started.
        """
        needs_records = any(reward.takes_record for reward in self._rewards)
        columns = records if needs_records and records is not None else [{}] * len(problems)
        sizes = len(problems), len(completions), len(answers), len(columns)
        if len(set(sizes)) > 1:
            raise ValueError(
                "problems, completions, answers and records have {}, {}, {} and {} rows; give "
                "lists of the same length".format(*sizes)
            )
        rows = list(zip(problems, completions, answers, columns, strict=True))
        with self._scoring:
            if self._closed:
                raise RuntimeError("the reward pool is closed; open another one")
            if self._in_process:
                outcomes = [_Outcome([graders.exact(*row[:3])]) for row in rows]
            else:
                outcomes = self._score_in_workers(rows)
        return self._collect(outcomes)

    def _score_in_workers(self, rows: list[tuple[Any, ...]]) -> list[_Outcome]:
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
            for worker in list(self._workers):  # some are busy only after an exception
                if worker.row is not None:
                    self._drop(worker)
        self._fill()  # replacements start while the run continues
        return [outcomes[i] for i in range(len(rows))]

    def _fill(self) -> None:
        """Starts workers until there are `config.num_workers`."""
        if self._in_process:
            return
        setup = {
            "functions": [r.worker | {"takes_record": r.takes_record} for r in self._rewards],
            "time_limit": self.config.time_limit,
        }
        while len(self._workers) < self.config.num_workers:
            with self._membership:
                if self._closed:
                    raise RuntimeError("the reward pool was closed while it scored")
                self._workers.append(start_worker(setup, START_LIMIT))

    def _hand_out(self, rows: list[tuple[Any, ...]], waiting: deque[int]) -> None:
        for worker in [w for w in self._workers if w.idle][: len(waiting)]:
            worker.row = waiting.popleft()
            try:
                worker.send(rows[worker.row], self.config.time_limit)
            except OSError:  # it died earlier, not because of this answer
                waiting.appendleft(worker.row)
                worker.row = None
                self._lose_start(worker, "it ended on its own")

    def _receive(self, worker: WorkerProcess, outcomes: dict[int, _Outcome]) -> None:
        try:
            reply = worker.receive()
        except EOFError:
            self._lose(worker, "crashed", "its process died", outcomes)
            return
        if reply is None:
            return
        if "error" in reply:  # every other worker would fail in the same way
            raise RuntimeError(self._cannot_start(reply["error"]))
        if "ready" in reply:
            worker.ready = True
            return
        assert worker.row is not None
        outcomes[worker.row] = _outcome(reply)
        worker.row = None
        self._failed_starts = 0

    def _end_overdue(self, outcomes: dict[int, _Outcome]) -> None:
        now = time.monotonic()
        for worker in [w for w in self._workers if not w.idle and w.deadline <= now]:
            limit = self.config.time_limit if worker.ready else START_LIMIT
            self._lose(worker, "timeout", f"no reply in {limit:g} s", outcomes)

    def _lose(
        self, worker: WorkerProcess, reason: str, detail: str, outcomes: dict[int, _Outcome]
    ) -> None:
        """Drops a dead or overdue worker and marks the answer it was grading as invalid."""
        if worker.row is None:
            self._lose_start(worker, detail)
        else:
            outcomes[worker.row] = _Outcome([], reason, detail)
            self._failed_starts = 0
            self._drop(worker)

    def _lose_start(self, worker: WorkerProcess, detail: str) -> None:
        self._drop(worker)
        self._failed_starts += 1
        if self._failed_starts > 2 * self.config.num_workers:
            raise RuntimeError(self._cannot_start(detail))

    def _drop(self, worker: WorkerProcess) -> None:
        worker.kill()
        self._workers.remove(worker)
        worker.reap()

    def _cannot_start(self, detail: str) -> str:
        if any("pickle" in reward.worker for reward in self._rewards):
            names = ", ".join(reward.name for reward in self._rewards)
            return (
                f"no worker can load the reward {names} ({detail}); a worker is a new Python "
                "process: import what the function uses inside of it, or move the function to a "
                "module of its own"
            )
        return (
            f"no worker can run config.reward.function = {self.config.function!r} ({detail}); "
            "check that its module can be imported in a new Python process"
        )

    def _collect(self, outcomes: list[_Outcome]) -> Scores:
        """The outcomes as arrays; logs one line if any answer has no valid reward."""
        counts = Counter(o.reason for o in outcomes if o.reason)
        self.failure = self.fix = ""
        if counts:
            row = next(i for i, o in enumerate(outcomes) if o.reason)
            self.failure, self.fix = outcomes[row].detail, FIXES[outcomes[row].reason]
            logger.warning(
                "%d of %d answers have no valid reward (%s); the first, row %d: %s",
                counts.total(),
                len(outcomes),
                ", ".join(f"{counts[r]} {r}" for r in REASONS if counts[r]),
                row,
                self.failure,
            )
        invalid = [0.0] * len(self._rewards)
        scores = np.array([o.scores or invalid for o in outcomes], np.float64)
        scores = scores.reshape(len(outcomes), len(self._rewards))
        weights = np.array([reward.weight for reward in self._rewards])
        several = self._rewards if len(self._rewards) > 1 else []
        return Scores(
            rewards=(scores @ weights).astype(np.float32),
            valid=np.array([not o.reason for o in outcomes], np.bool_),
            reasons={reason: counts[reason] for reason in REASONS},
            by_function={r.name: scores[:, i].astype(np.float32) for i, r in enumerate(several)},
            details=[o.details for o in outcomes],
        )


def _outcome(reply: dict[str, Any]) -> _Outcome:
    if "scores" in reply:
        return _Outcome(reply["scores"], details=reply.get("details", {}))
    ((reason, detail),) = reply.items()
    return _Outcome([], reason, detail)
