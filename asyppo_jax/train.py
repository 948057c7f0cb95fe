"""`train`: prepares a run, or restores a killed one, and runs its steps (`loop`)."""

import dataclasses
import inspect
import os
import signal
import sys
import time
import types
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import jax

from asyppo_jax.algorithm.offload import resting_shardings
from asyppo_jax.algorithm.policy_losses import PolicyLoss
from asyppo_jax.algorithm.state import state_shapes
from asyppo_jax.config import Config, ConfigError, Settings
from asyppo_jax.loop import Loop
from asyppo_jax.runs import checkpoint as checkpoints
from asyppo_jax.runs.base_files import keep_base_files
from asyppo_jax.runs.disk import check_workdir, raise_if_disk_error
from asyppo_jax.runs.finished import describe_finished, is_evaluated, is_finished
from asyppo_jax.runs.inputs import keep_inputs
from asyppo_jax.runs.interrupt import Interrupt, Stopped
from asyppo_jax.runs.metrics import MetricWriter, elapsed_until
from asyppo_jax.runs.progress import Progress, describe_devices, describe_sizes
from asyppo_jax.runs.setup import Run, first_state, prepare, print_once, with_functions
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
    if not isinstance(workdir, str | os.PathLike):
        raise ConfigError(f"workdir is {workdir!r:.60}; call train(config, workdir)")
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
        sizes = describe_sizes(config, int(state.step))
        print_once(f"{describe_devices(run.mesh, config.mesh)}\n{sizes}")
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
    started -= elapsed_until(workdir, start_step) if first_step and is_writer else 0.0
    written = start_step if first_step else None
    with (
        closing(MetricWriter(workdir, config.log, written, is_writer=is_writer)) as writer,
        closing(Progress(config.num_steps, start_step, is_writer=is_writer)) as progress,
        Interrupt(progress.print, manager.wait_until_finished) as interrupt,
    ):
        loop = Loop(run, pool, data, manager, workdir, writer, progress, interrupt, started)
        loop.run_from(state, unevaluated)


class _CallableModule(types.ModuleType):
    """This module: `from asyppo_jax import train` gives it, as it does any submodule.

    A function of that name in the package would not last: an import of the submodule replaces it.
    """

    __call__ = staticmethod(train)
    __signature__ = inspect.signature(train)  # what notebooks show


sys.modules[__name__].__class__ = _CallableModule
