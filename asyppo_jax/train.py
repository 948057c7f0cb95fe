"""The training loop: sample, score, update, evaluate, log and save; it resumes a killed run."""

import dataclasses
import inspect
import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax

from asyppo_jax.algorithm.learning_rates import learning_rates
from asyppo_jax.algorithm.offload import resting_shardings
from asyppo_jax.algorithm.policy_losses import PolicyLoss
from asyppo_jax.algorithm.state import state_shapes
from asyppo_jax.algorithm.train_step import phase_key, warmup_steps
from asyppo_jax.config import Config, ConfigError, Settings
from asyppo_jax.evaluation.held_out import evaluate
from asyppo_jax.runs import checkpoint as checkpoints
from asyppo_jax.runs.base_files import keep_base_files
from asyppo_jax.runs.checksums import ChecksumWriter
from asyppo_jax.runs.collect import collect
from asyppo_jax.runs.disk import check_workdir, raise_if_disk_error
from asyppo_jax.runs.finished import describe_finished, is_evaluated, is_finished, passes_bar
from asyppo_jax.runs.inputs import keep_inputs
from asyppo_jax.runs.interrupt import Interrupt, Stopped
from asyppo_jax.runs.metrics import MetricWriter, elapsed_until, require_finite
from asyppo_jax.runs.progress import Progress, describe_sizes
from asyppo_jax.runs.save_heldout import make_heldout_saver
from asyppo_jax.runs.save_rollouts import make_rollout_saver
from asyppo_jax.runs.setup import Run, first_state, prepare, print_once, with_functions
from asyppo_jax.runs.step_report import (
    check_scored,
    count_unscored,
    metrics_of_rollout,
    print_step,
    warn_if_nothing_can_be_learnt,
    without_actor,
)
from asyppo_jax.runs.summary import describe_result, summarize_run
from asyppo_jax.runtime.multi_host import is_first
from asyppo_jax.runtime.sharding import placed
from asyppo_jax.tasks.prompts import make_prompt_iterator
from asyppo_jax.tasks.rewards import RewardFunction, RewardPool
from asyppo_jax.tasks.rewards.functions import check_reward_of_task
from asyppo_jax.types import TrainState


def train(
    config: Config | Settings,
    workdir: str | os.PathLike[str],
    *,
    loss: PolicyLoss | None = None,
    reward: RewardFunction | Sequence[RewardFunction] | None = None,
    pool: RewardPool | None = None,
) -> dict[str, Any]:
    """Trains from the last checkpoint in `workdir`, or from the start; returns the summary.

    A run that was killed and is started again gives a result that is bitwise identical to that of
    an uninterrupted run. If several processes share the run (see `multi_host.initialize`), all must
    call this with the same arguments. All write checkpoints; the first one writes all other files,
    and the others return an empty summary. The summary is that of `summary.json`: accuracy before,
    after and best, steps, seconds, seed, device, version, and the paths of the plots.

    The first Ctrl-C lets the current step finish and saves it; a second one, or one during the
    first step or an evaluation, stops at once. Both end in `KeyboardInterrupt`, which says what is
    kept. In a run of several processes Ctrl-C saves nothing. SIGTERM and SIGHUP drop the current
    step, or let it finish if its update has begun, and save; all processes of a run stop at the
    same step. They end in `Stopped`, a `KeyboardInterrupt` with the signal's `number`.

    Args:
        config: a `Config`, or the editable settings of `default_config()`.
        workdir: the run's directory, which may be in a bucket.
        loss: replaces the loss that `config.algorithm.loss` names; see `algorithm.policy_losses`.
        reward: replaces the functions that `config.reward.function` names. May be defined in a
            notebook.
        pool: an open pool of these rewards, which several runs in a process share; it stays open.

    Raises:
        ConfigError, ModelError, DataError, CheckpointError, DiskError, NonFiniteError: each with a
            one-sentence message.
    """
    started = time.perf_counter()
    workdir = os.fspath(workdir)
    config = with_functions(config, loss, reward, workdir)
    check_workdir(workdir)
    checkpoints.check_same_run(workdir, dataclasses.asdict(config))
    if pool is not None and pool.config != replace(
        config.reward, num_workers=pool.config.num_workers
    ):
        raise ConfigError(
            f"the given pool scores with {pool.config.function!r} and its settings, the run with "
            f"{config.reward.function!r}; give RewardPool(config.reward), or with functions of "
            "your own RewardPool(config.reward, functions) and the same as reward"
        )
    try:
        if reward is None:
            for data in (config.train_data, config.eval_data):
                check_reward_of_task(config.reward.function, data)
        # Refuses before the settings are written.
        with nullcontext(pool) if pool else RewardPool(config.reward, reward) as opened:
            run = prepare(config, loss)
            keep_inputs(workdir, config, run.train_prompts, run.eval_prompts)
            checkpoints.write_settings(workdir, dataclasses.asdict(config))
            keep_base_files(config, workdir)
            with jax.set_mesh(run.mesh):
                _restore_and_train(run, opened, workdir, started)
        summary = summarize_run(config, workdir) if is_first() else {}
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        raise Stopped(checkpoints.describe_kept(workdir, number), number) from None
    except Exception as error:
        raise_if_disk_error(error, workdir)
        raise
    if summary:
        print(f"\n{describe_result(summary, workdir)}")
    return summary


def _restore_and_train(run: Run, pool: RewardPool, workdir: str, started: float) -> None:
    config = run.config
    manager = checkpoints.make_manager(workdir, config.checkpoint)
    data = make_prompt_iterator(
        run.train_prompts, batch_size=config.sampling.num_prompts, seed=config.seed
    )
    try:
        state, unevaluated = _restore_or_start(run, manager, data, workdir)
        if unevaluated is None and is_finished(state, config, workdir):
            return
        print_once(describe_sizes(config))
        _train_on(run, state, unevaluated, data, pool, manager, workdir, started)
    finally:
        manager.wait_until_finished()
        manager.close()


def _restore_or_start(
    run: Run, manager, data, workdir: str
) -> tuple[TrainState, dict[str, float] | None]:
    """The state to go on from; and the metrics of its step, if that still has to be evaluated."""
    if manager.latest_step() is None:
        return first_state(run), None
    shardings = resting_shardings(run.config, run.networks, run.mesh)
    shapes = state_shapes(run.config, run.networks)
    state, data_state = checkpoints.restore(manager, placed(shapes, shardings))
    unevaluated = checkpoints.take_unevaluated(data_state)
    data.set_state(data_state)
    if unevaluated is not None and is_evaluated(workdir, int(state.step)):
        unevaluated = None
    if unevaluated is None and is_finished(state, run.config, workdir):
        print_once(describe_finished(state, run.config))
    else:
        print_once(f"resuming after step {int(state.step)} of {manager.directory}")
    return state, unevaluated


def _train_on(
    run: Run, state: TrainState, unevaluated, data, pool, manager, workdir, started: float
) -> None:
    """Runs steps, evaluations, metrics and checkpoints from the state's step to the last."""
    config, first_step = run.config, int(state.step)
    is_writer, start_step = is_first(), first_step - (unevaluated is not None)
    save_rollout = make_rollout_saver(workdir, run.networks, run.sampler, config, run.mesh)
    save_heldout = make_heldout_saver(
        workdir, run.networks, run.evaluation_sampler, config, run.mesh, run.eval_prompts
    )
    started -= elapsed_until(workdir, start_step) if first_step and is_writer else 0.0
    at = {"start_step": start_step, "is_writer": is_writer}
    with (
        closing(MetricWriter(workdir, config.log, **at)) as writer,
        closing(Progress(config.num_steps, **at)) as progress,
        Interrupt(progress.print, manager.wait_until_finished) as interrupt,
    ):
        sums = ChecksumWriter(manager.directory)

        def write(step: int, metrics: dict[str, float]) -> None:
            writer.write(step, metrics | {"time/elapsed_s": time.perf_counter() - started})
            if not manager.is_saving_in_progress():
                sums.start()

        save = partial(checkpoints.save_and_hash, manager, sums)
        work = _Work(
            partial(_one_step, run, pool, data, progress, save_rollout, writer, interrupt),
            partial(_evaluate, run, pool, progress, save_heldout),
            partial(count_unscored, config, pool),
            lambda state: partial(save, state, data.get_state()),
            write,
        )
        try:
            if first_step == 0:
                writer.write_text(0, "config", json.dumps(dataclasses.asdict(config), indent=2))
                interrupt.rescue = _nothing_new
                metrics = work.evaluate(state)
                interrupt.commit()
                interrupt.check()
                check_scored(metrics, run, pool)
                write(0, metrics)
            _run_steps(config, state, unevaluated, progress, interrupt, work)
        except Stopped:
            interrupt.leave()
            raise
        finally:
            interrupt.rescue = None
            interrupt.leave()
            sums.start()
            sums.finish()
        interrupt.check()  # of the last step: a loop over runs ends, too


class _Work(NamedTuple):
    """What the loop does, with all that stays the same bound to it."""

    one_step: Callable[[TrainState], tuple[TrainState, dict[str, float]]]
    evaluate: Callable[[TrainState], dict[str, float]]
    count_unscored: Callable[[int, dict[str, float], int], int]
    checkpoint: Callable[[TrainState], Callable[..., None]]  # takes the data's position at once
    write: Callable[[int, dict[str, float]], None]


def _run_steps(
    config: Config,
    state: TrainState,
    unevaluated: dict[str, float] | None,
    progress: Progress,
    interrupt: Interrupt,
    work: _Work,
) -> None:
    """The steps after that of `state`; first the evaluation of its own step, if it is missing."""
    first_step = saved_step = int(state.step)
    step, warned, unscored = first_step, False, 0
    while step < config.num_steps or unevaluated is not None:
        compiles, step = step == first_step, step + (unevaluated is None)
        last = step == config.num_steps
        evaluated = last or (config.evaluation.every and step % config.evaluation.every == 0)
        name = f"step {step} and its evaluation" if evaluated else f"step {step}"
        # Compilations and evaluations may take minutes: they are not waited for.
        interrupt.wait_for = "" if compiles else name
        if unevaluated is None:
            is_new = step - 1 > saved_step  # the update has not begun, so the state is still there
            save = work.checkpoint(state)
            interrupt.rescue = partial(save, None) if is_new else _nothing_new
            state, metrics = work.one_step(state)
        else:
            metrics, unevaluated = unevaluated, None
        if passes_bar(config, metrics):
            last = evaluated = True
        if evaluated:
            interrupt.wait_for = ""
            is_new = step > saved_step
            save = work.checkpoint(state)
            interrupt.rescue = partial(save, None, metrics) if is_new else _nothing_new
            interrupt.check_ending()
            metrics = metrics | work.evaluate(state)
            interrupt.commit()
        interrupt.agree()
        interrupt.wait_for = name
        # Before the checkpoint: a run that resumes from it does not write this step again.
        work.write(step, metrics)
        progress.finish_step(step, metrics)
        unscored = work.count_unscored(step, metrics, unscored)
        if step - first_step <= 3:  # later, equal rewards are no sign of a mistake
            warned = warned or warn_if_nothing_can_be_learnt(config, step, metrics, progress)
        due = config.checkpoint.every and step % config.checkpoint.every == 0
        if (last or due or interrupt.requested) and step > saved_step:
            work.checkpoint(state)(metrics["evaluate/accuracy"] if evaluated else None)
            saved_step = step
        if last:
            break
        interrupt.check()


def _nothing_new() -> None:
    """Saves nothing: the last checkpoint has the state, or nothing was trained."""


def _one_step(
    run: Run,
    pool: RewardPool,
    data,
    progress: Progress,
    save_rollout,
    writer: MetricWriter,
    interrupt: Interrupt,
    state: TrainState,
) -> tuple[TrainState, dict[str, float]]:
    """Samples, scores and updates once; raises `NonFiniteError` before anything is saved."""
    warming_up = int(state.step) < warmup_steps(run.config)
    step = int(state.step) + 1
    collected = collect(run, state, data, pool, progress)
    rollout, scores = collected.rollout, collected.scores
    if step == 1 and run.init_heads is not None:
        state = state.replace(critic_params=run.init_heads(state.critic_params, rollout))
    save_rollout(state, rollout, collected.prompts)
    interrupt.commit()  # the update takes the state's memory
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
    print_step(run.config, step, metrics, collected.answers, scores, progress, writer)
    return state, metrics | times


def _evaluate(
    run: Run, pool: RewardPool, progress: Progress, save_heldout, state: TrainState
) -> dict[str, float]:
    with progress.phase("evaluate"), jax.set_mesh(run.sampling_mesh):
        seen = run.for_sampling(state)
        result = evaluate(
            run.evaluation_sampler,
            seen.actor_params,
            run.eval_prompts,
            pool,
            phase_key(seen.key, seen.step, "evaluate"),
            run.config,
            run.sampling_mesh,
            on_first_batch=partial(save_heldout, state) if save_heldout else None,
        )
    progress.print(
        f"step {int(state.step)}: held-out {run.config.reward.measure} {result.accuracy:.3f} "
        f"({len(run.eval_prompts)} problems, {result.invalid} answers without a score)"
    )
    return result.metrics() | progress.take_times()


class _CallableModule(types.ModuleType):
    """This module: `from asyppo_jax import train` gives it, as it does any submodule.

    A function of that name in the package would not last: an import of the submodule replaces it.
    """

    __call__ = staticmethod(train)
    __signature__ = inspect.signature(train)  # what notebooks show


sys.modules[__name__].__class__ = _CallableModule
