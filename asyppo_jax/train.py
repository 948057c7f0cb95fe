"""The training loop: sample, score, update, evaluate, log and save; it resumes a killed run."""

import dataclasses
import inspect
import json
import os
import sys
import time
import types
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath

from asyppo_jax.algorithm.learning_rates import learning_rates
from asyppo_jax.algorithm.offload import resting_shardings
from asyppo_jax.algorithm.policy_losses import PolicyLoss
from asyppo_jax.algorithm.state import state_shapes
from asyppo_jax.algorithm.train_step import phase_key, warmup_steps
from asyppo_jax.config import Config, ConfigError, Settings
from asyppo_jax.evaluation.held_out import evaluate
from asyppo_jax.runs import checkpoint as checkpoints
from asyppo_jax.runs.base_files import keep_base_files
from asyppo_jax.runs.collect import collect
from asyppo_jax.runs.finished import describe_finished, is_finished, passes_bar
from asyppo_jax.runs.interrupt import Interrupt
from asyppo_jax.runs.metrics import (
    METRICS_FILE,
    MetricWriter,
    read_metrics,
    require_finite,
    write_problem_counts,
)
from asyppo_jax.runs.progress import Progress, describe_sizes, format_samples
from asyppo_jax.runs.save_heldout import make_heldout_saver
from asyppo_jax.runs.save_rollouts import make_rollout_saver
from asyppo_jax.runs.setup import Run, first_state, prepare, print_once, with_functions
from asyppo_jax.runs.summary import describe_result, summarize_run
from asyppo_jax.runtime.multi_host import is_first, sum_over_hosts
from asyppo_jax.runtime.paths import check_packages
from asyppo_jax.runtime.sharding import placed
from asyppo_jax.sampling.sampler import Answers
from asyppo_jax.tasks.prompts import make_prompt_iterator
from asyppo_jax.tasks.rewards import RewardFunction, RewardPool, Scores
from asyppo_jax.tasks.rewards.functions import check_reward_of_task
from asyppo_jax.types import TrainState

_FIRST_STEPS = 3  # in these a run says if all rewards are equal


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
    kept. In a run of several processes Ctrl-C saves nothing.

    Args:
        config: a `Config`, or the editable settings of `default_config()`.
        workdir: the run's directory, which may be in a bucket.
        loss: replaces the loss that `config.algorithm.loss` names; see `algorithm.policy_losses`.
        reward: replaces the functions that `config.reward.function` names. May be defined in a
            notebook.
        pool: an open pool of these rewards, which several runs in a process share; it stays open.

    Raises:
        ConfigError, ModelError, DataError, CheckpointError, NonFiniteError: each with a
            one-sentence message.
    """
    started = time.perf_counter()
    workdir = os.fspath(workdir)
    config = with_functions(config, loss, reward, workdir)
    check_packages(workdir)
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
            checkpoints.write_settings(workdir, dataclasses.asdict(config))
            if is_first():
                write_problem_counts(workdir, len(run.train_prompts), len(run.eval_prompts))
            keep_base_files(config, workdir)
            with jax.set_mesh(run.mesh):
                _restore_and_train(run, opened, workdir, started)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(checkpoints.describe_kept(workdir)) from None
    if not is_first():
        return {}
    summary = summarize_run(config, workdir)
    print(f"\n{describe_result(summary, workdir)}")
    return summary


def _restore_and_train(run: Run, pool: RewardPool, workdir: str, started: float) -> None:
    config = run.config
    manager = checkpoints.make_manager(workdir, config.checkpoint)
    data = make_prompt_iterator(
        run.train_prompts, batch_size=config.sampling.num_prompts, seed=config.seed
    )
    try:
        state = _restore_or_start(run, manager, data, workdir)
        if is_finished(state, config, workdir):
            return
        print_once(describe_sizes(config))
        _train_on(run, state, data, pool, manager, workdir, started)
    finally:
        manager.wait_until_finished()
        manager.close()


def _restore_or_start(run: Run, manager, data, workdir: str) -> TrainState:
    if manager.latest_step() is None:
        return first_state(run)
    shardings = resting_shardings(run.config, run.networks, run.mesh)
    shapes = state_shapes(run.config, run.networks)
    state, data_state = checkpoints.restore(manager, placed(shapes, shardings))
    data.set_state(data_state)
    if is_finished(state, run.config, workdir):
        print_once(describe_finished(state, run.config))
    else:
        print_once(f"resuming after step {int(state.step)} of {manager.directory}")
    return state


def _train_on(run: Run, state: TrainState, data, pool, manager, workdir, started: float) -> None:
    """Runs steps, evaluations, metrics and checkpoints from the state's step to the last."""
    config, step = run.config, int(state.step)
    first_step, warned = step, False
    is_writer = is_first()
    save_rollout = make_rollout_saver(workdir, run.networks, run.sampler, config, run.mesh)
    save_heldout = make_heldout_saver(
        workdir, run.networks, run.evaluation_sampler, config, run.mesh, run.eval_prompts
    )
    if step and is_writer:  # the elapsed time includes that of the earlier processes
        rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
        started -= max((r["time/elapsed_s"] for r in rows if r["step"] <= step), default=0.0)
    with (
        closing(MetricWriter(workdir, config.log, start_step=step, is_writer=is_writer)) as writer,
        closing(Progress(config.num_steps, start_step=step, is_writer=is_writer)) as progress,
        Interrupt(progress.print) as interrupt,
    ):

        def write(metrics: dict[str, float]) -> None:
            writer.write(step, metrics | {"time/elapsed_s": time.perf_counter() - started})

        if step == 0:
            writer.write_text(step, "config", json.dumps(dataclasses.asdict(config), indent=2))
            metrics = _evaluate(run, state, pool, progress, save_heldout)
            interrupt.check()
            _check_scored(metrics, run, pool)
            write(metrics)
        while step < config.num_steps:
            compiles, step = step == first_step, step + 1
            last = step == config.num_steps
            evaluated = last or (config.evaluation.every and step % config.evaluation.every == 0)
            work = f"step {step} and its evaluation" if evaluated else f"step {step}"
            # Compilations and evaluations may take minutes: they are not waited for.
            interrupt.wait_for = "" if compiles else work
            state, metrics = _one_step(run, state, data, pool, progress, save_rollout, writer)
            if passes_bar(config, metrics):
                last = evaluated = True
            if evaluated:
                interrupt.wait_for = ""
                metrics |= _evaluate(run, state, pool, progress, save_heldout)
            interrupt.wait_for = work
            # Before the checkpoint: a run that resumes from it does not write this step again.
            write(metrics)
            progress.finish_step(step, metrics)
            if step - first_step <= _FIRST_STEPS:
                warned = warned or _warn_if_nothing_can_be_learnt(run, step, metrics, progress)
            due = config.checkpoint.every and step % config.checkpoint.every == 0
            if last or due or interrupt.requested:
                accuracy = metrics["evaluate/accuracy"] if evaluated else None
                checkpoints.save(manager, state, data.get_state(), accuracy)
            if last:
                break
            interrupt.check()
        interrupt.check()  # of the last step: a loop over runs ends, too


def _one_step(
    run: Run,
    state: TrainState,
    data,
    pool: RewardPool,
    progress: Progress,
    save_rollout,
    writer: MetricWriter,
) -> tuple[TrainState, dict[str, float]]:
    """Samples, scores and updates once; raises `NonFiniteError` before anything is saved."""
    warming_up = int(state.step) < warmup_steps(run.config)
    step = int(state.step) + 1
    collected = collect(run, state, data, pool, progress)
    rollout, scores = collected.rollout, collected.scores
    if step == 1 and run.init_heads is not None:
        state = state.replace(critic_params=run.init_heads(state.critic_params, rollout))
    save_rollout(state, rollout, collected.prompts)
    # The step must not transfer anything between host and device implicitly.
    with progress.phase("update"), jax.transfer_guard("disallow"):
        state, device_metrics = run.train_step(state, rollout)
        metrics = {name: float(x) for name, x in jax.device_get(device_metrics).items()}
    if warming_up:  # the actor was not updated: the metrics of its update are NaN
        of_actor = ("actor/", "rollout/log_prob_gap", "ensemble/low_std_", "ensemble/high_std_")
        metrics = {name: x for name, x in metrics.items() if not name.startswith(of_actor)}
    require_finite(step, metrics, run.config.algorithm.loss)
    times = progress.take_times()
    metrics |= _mean_of_each_reward(scores) | collected.metrics | learning_rates(run.config, step)
    metrics["rollout/truncated_fraction"] = float(collected.columns.truncated.mean())
    metrics["rollout/tokens_per_s"] = collected.sampled_tokens / times["time/sample_s"]
    _print_step(run.config, step, metrics, collected.answers, scores, progress, writer)
    return state, metrics | times


def _mean_of_each_reward(scores: Scores) -> dict[str, float]:
    """Where several functions make the reward, the mean of each over all valid answers."""
    sums = {name: np.sum(x[scores.valid]) for name, x in scores.by_function.items()}
    sums, count = sum_over_hosts((sums, np.float32(scores.valid.sum())))
    return {f"rollout/reward_{name}": float(x / max(count, 1)) for name, x in sums.items()}


def _check_scored(metrics: dict[str, float], run: Run, pool: RewardPool) -> None:
    """Raises `ConfigError` if no held-out answer got a reward before the first step."""
    total = len(run.eval_prompts) * run.config.evaluation.num_samples
    if metrics["evaluate/invalid"] == total:
        raise ConfigError(
            f"none of the {total} answers to the held-out problems got a reward from "
            f"{run.config.reward.function}: {pool.failure or 'see the messages above'}; "
            f"{pool.fix or 'correct the function'}"
        )


def _warn_if_nothing_can_be_learnt(
    run: Run, step: int, metrics: dict[str, float], progress: Progress
) -> bool:
    """Prints a line if all rewards of a step are equal; returns whether it did."""
    if metrics["rollout/reward_std"] > 1e-6:  # equal rewards have a std of a rounding error
        return False
    sampling = run.config.sampling
    none = metrics["rollout/reward_invalid"] == sampling.num_prompts * sampling.group_size
    what = (
        "no answer has a reward" if none else f"every reward is {metrics['rollout/reward_mean']:g}"
    )
    progress.print(
        f"step {step}: {what}, so nothing can be learnt from it; if this goes on, see "
        "docs/troubleshooting.md, 'rollout/reward_mean stays 0 or 1'"
    )
    return True


def _evaluate(
    run: Run, state: TrainState, pool: RewardPool, progress: Progress, save_heldout
) -> dict[str, float]:
    with progress.phase("evaluate"):
        result = evaluate(
            run.evaluation_sampler,
            state.actor_params,
            run.eval_prompts,
            pool,
            phase_key(state.key, state.step, "evaluate"),
            run.config,
            run.mesh,
            on_first_batch=partial(save_heldout, state) if save_heldout else None,
        )
    progress.print(
        f"step {int(state.step)}: held-out {run.config.reward.measure} {result.accuracy:.3f} "
        f"({len(run.eval_prompts)} problems, {result.invalid} answers without a score)"
    )
    return result.metrics() | progress.take_times()


def _print_step(
    config: Config,
    step: int,
    metrics: dict[str, float],
    answers: Answers,
    scores: Scores,
    progress: Progress,
    writer: MetricWriter,
) -> None:
    """Prints answers without a score, a log-prob gap that is too large, and samples."""
    reasons = {name: int(count) for name, count in sum_over_hosts(scores.reasons).items()}
    if any(reasons.values()):
        progress.print(f"step {step}: answers without a score: {reasons}")
    gap, bound = metrics.get("rollout/log_prob_gap", 0.0), config.algorithm.log_prob_gap_bound
    if gap > bound:
        progress.print(
            f"step {step}: the log-probs of sampler and learner differ by {gap:.3g} nats per token "
            f"on average, more than config.algorithm.log_prob_gap_bound = {bound:g}; set "
            'config.actor.dtype = "float32" or config.algorithm.old_log_probs = "recompute"'
        )
    every = config.log.samples_every
    if is_first() and every and (step % every == 0 or step == config.num_steps):
        rows = np.linspace(0, len(answers.problems) - 1, config.log.num_samples).astype(int)
        samples = format_samples(
            step,
            [answers.prompts[i] for i in rows],
            [answers.completions[i] for i in rows],
            [float(scores.rewards[i]) for i in rows],
            [bool(scores.valid[i]) for i in rows],
        )
        progress.print(samples)
        writer.write_text(step, "samples", samples)


class _CallableModule(types.ModuleType):
    """This module: `from asyppo_jax import train` gives it, as it does any submodule.

    A function of that name in the package would not last: an import of the submodule replaces it.
    """

    __call__ = staticmethod(train)
    __signature__ = inspect.signature(train)  # what notebooks show


sys.modules[__name__].__class__ = _CallableModule
