"""The loop over the steps of a run: sample, score, update, evaluate, log and save."""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import orbax.checkpoint as ocp

from asyppo_jax.algorithm.learning_rates import learning_rates
from asyppo_jax.algorithm.train_step import phase_key, warmup_steps
from asyppo_jax.evaluation.held_out import evaluate
from asyppo_jax.runs import checkpoint as checkpoints
from asyppo_jax.runs.checksums import ChecksumWriter
from asyppo_jax.runs.collect import collect
from asyppo_jax.runs.finished import passes_bar
from asyppo_jax.runs.interrupt import Interrupt, Stopped
from asyppo_jax.runs.metrics import MetricWriter, require_finite
from asyppo_jax.runs.progress import Progress
from asyppo_jax.runs.save_heldout import make_heldout_saver
from asyppo_jax.runs.save_rollouts import make_rollout_saver
from asyppo_jax.runs.setup import Run
from asyppo_jax.runs.step_report import (
    check_scored,
    count_unscored,
    metrics_of_rollout,
    print_step,
    warn_if_nothing_can_be_learnt,
    without_actor,
)
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.types import TrainState

_EARLY_STEPS = 3  # in which equal rewards are a sign of a mistake


class Loop:
    """The steps of a run from a state to the last one; used once.

    What a signal interrupts is saved by `interrupt.rescue`: the state before the current work, if
    no checkpoint has it yet.
    """

    def __init__(
        self,
        run: Run,
        pool: RewardPool,
        data: Any,
        manager: ocp.CheckpointManager,
        workdir: str,
        writer: MetricWriter,
        progress: Progress,
        interrupt: Interrupt,
        started: float,
    ) -> None:
        """`started` is the `time.perf_counter()` at which an uninterrupted run would have begun.

        Raises:
            ConfigError: more rollouts or held-out answers are to be saved than there are.
        """
        self._run, self._config, self._pool, self._data = run, run.config, pool, data
        self._manager, self._sums = manager, ChecksumWriter(manager.directory)
        self._writer, self._progress, self._interrupt = writer, progress, interrupt
        self._started = started
        self._save_rollout = make_rollout_saver(
            workdir, run.networks, run.sampler, run.config, run.mesh
        )
        self._save_held_out = make_heldout_saver(
            workdir, run.networks, run.evaluation_sampler, run.config, run.mesh, run.eval_prompts
        )
        self._saved_step = 0  # that of the last checkpoint
        self._unscored = 0  # steps without a score, in a row
        self._warned = False  # that nothing can be learnt

    def run_from(self, state: TrainState, unevaluated: dict[str, float] | None) -> None:
        """Runs to the last step of the config.

        `unevaluated` has the metrics of the state's step, if only its evaluation is missing.

        Raises:
            KeyboardInterrupt, Stopped: a signal arrived.
            NonFiniteError, ConfigError: nothing of the step that failed is saved.
        """
        try:
            if int(state.step) == 0:
                self._begin(state)
            self._run_steps(state, unevaluated)
        except Stopped:
            self._interrupt.leave()
            raise
        finally:
            self._interrupt.rescue = None
            self._interrupt.leave()
            self._sums.start()
            self._sums.finish()
        self._interrupt.check()  # of the last step: a loop over runs ends, too

    def _begin(self, state: TrainState) -> None:
        """Step 0: the settings as text, and the accuracy before training."""
        settings = dataclasses.asdict(self._config)
        self._writer.write_text(0, "config", json.dumps(settings, indent=2))
        metrics = self._evaluate(state, {})
        self._interrupt.check()
        check_scored(metrics, self._run, self._pool)
        self._write(0, metrics)

    def _run_steps(self, state: TrainState, unevaluated: dict[str, float] | None) -> None:
        config, interrupt = self._config, self._interrupt
        first_step = self._saved_step = step = int(state.step)
        while step < config.num_steps or unevaluated is not None:
            compiles, step = step == first_step, step + (unevaluated is None)
            last = step == config.num_steps
            evaluated = last or _is_due(config.evaluation.every, step)
            name = f"step {step} and its evaluation" if evaluated else f"step {step}"
            # Compilations and evaluations may take minutes: they are not waited for.
            interrupt.wait_for = "" if compiles else name
            if unevaluated is None:
                state, metrics = self._step(state)
            else:
                metrics, unevaluated = unevaluated, None
            if passes_bar(config, metrics):
                last = evaluated = True
            if evaluated:
                interrupt.wait_for = ""
                metrics = metrics | self._evaluate(state, metrics)
            interrupt.agree()
            interrupt.wait_for = name
            # Before the checkpoint: a run that resumes from it does not write this step again.
            self._write(step, metrics)
            self._report(step, metrics, early=step - first_step <= _EARLY_STEPS)
            due = last or interrupt.requested or _is_due(config.checkpoint.every, step)
            if due and step > self._saved_step:
                self._saver(state)(metrics["evaluate/accuracy"] if evaluated else None)
                self._saved_step = step
            if last:
                break
            interrupt.check()

    def _step(self, state: TrainState) -> tuple[TrainState, dict[str, float]]:
        """Samples, scores and updates once; raises `NonFiniteError` before anything is saved."""
        run, progress, step = self._run, self._progress, int(state.step) + 1
        warming_up = step <= warmup_steps(run.config)
        self._rescue(state)
        collected = collect(run, state, self._data, self._pool, progress)
        rollout, scores = collected.rollout, collected.scores
        if step == 1 and run.init_heads is not None:
            state = state.replace(critic_params=run.init_heads(state.critic_params, rollout))
        self._save_rollout(state, rollout, collected.prompts)
        self._interrupt.commit()  # the update takes the state's memory
        # The step must not transfer anything between host and device implicitly.
        with progress.phase("update"), jax.transfer_guard("disallow"):
            state, device_metrics = run.train_step(state, rollout)
            metrics = {name: float(x) for name, x in jax.device_get(device_metrics).items()}
        if warming_up:
            metrics = without_actor(metrics)
        require_finite(step, metrics, run.config.algorithm.loss)
        times = progress.take_times()
        metrics |= metrics_of_rollout(collected, times["time/sample_s"])
        metrics |= learning_rates(run.config, step)
        print_step(run.config, step, metrics, collected.answers, scores, progress, self._writer)
        return state, metrics | times

    def _evaluate(self, state: TrainState, metrics: dict[str, float]) -> dict[str, float]:
        """The held-out metrics of a state; `metrics` are those of its step until now."""
        run, progress, save = self._run, self._progress, self._save_held_out
        self._rescue(state, metrics)
        self._interrupt.check_ending()
        with progress.phase("evaluate"), jax.set_mesh(run.sampling_mesh):
            seen = run.for_sampling(state)
            result = evaluate(
                run.evaluation_sampler,
                seen.actor_params,
                run.eval_prompts,
                self._pool,
                phase_key(seen.key, seen.step, "evaluate"),
                run.config,
                run.sampling_mesh,
                save_first_batch=partial(save, state) if save else None,
            )
        self._interrupt.commit()
        progress.print(
            f"step {int(state.step)}: held-out {run.config.reward.measure} {result.accuracy:.3f} "
            f"({len(run.eval_prompts)} problems, {result.invalid} answers without a score)"
        )
        return result.metrics() | progress.take_times()

    def _rescue(self, state: TrainState, unevaluated: dict[str, float] | None = None) -> None:
        """A signal during the work that now begins saves `state`, unless a checkpoint has it."""
        if int(state.step) > self._saved_step:
            self._interrupt.rescue = partial(self._saver(state), None, unevaluated)
        else:
            self._interrupt.rescue = _nothing_new

    def _saver(self, state: TrainState) -> Callable[..., None]:
        """A function that saves `state` with the position in the data as it is now."""
        position = self._data.get_state()
        return partial(checkpoints.save_and_hash, self._manager, self._sums, state, position)

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        elapsed = time.perf_counter() - self._started
        self._writer.write(step, metrics | {"time/elapsed_s": elapsed})
        if not self._manager.is_saving_in_progress():
            self._sums.start()

    def _report(self, step: int, metrics: dict[str, float], *, early: bool) -> None:
        """Shows a step's numbers, and says if it taught nothing.

        Raises:
            ConfigError: several steps in a row had no score.
        """
        config, progress = self._config, self._progress
        progress.finish_step(step, metrics)
        self._unscored = count_unscored(config, self._pool, step, metrics, self._unscored)
        if early and not self._warned:
            self._warned = warn_if_nothing_can_be_learnt(config, step, metrics, progress)


def _is_due(every: int, step: int) -> bool:
    """Whether something happens at this step; never if `every` is 0."""
    return every > 0 and step % every == 0


def _nothing_new() -> None:
    """Saves nothing: the last checkpoint has the state, or nothing was trained."""
