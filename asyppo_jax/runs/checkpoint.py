"""Orbax checkpoints of everything that a run needs to resume exactly, and loading for evaluation.

A checkpoint has the `TrainState` (parameters, optimizer states, key, step) and the state of the
data iterator. Orbax writes to a temporary name and renames, so a killed run leaves no incomplete
checkpoint.
"""

import json
import math
import signal
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from asyppo_jax.config import CheckpointConfig, Config, ConfigError, UserError, from_dict
from asyppo_jax.config.reading import flatten, may_change
from asyppo_jax.runs.checksums import ChecksumWriter, find_damage
from asyppo_jax.runs.metrics import METRICS_FILE, read_metrics
from asyppo_jax.runs.orbax_logs import hide_raised_exceptions, without_metric_warning
from asyppo_jax.runtime.multi_host import is_first, sum_over_hosts
from asyppo_jax.runtime.paths import absolute, checkpoint_directory, state_directory, write_whole
from asyppo_jax.types import TrainState


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be used; the message names the directory and the fix."""


def make_manager(workdir: str, config: CheckpointConfig) -> ocp.CheckpointManager:
    """A manager that keeps the latest `config.keep` steps and the best one by held-out reward."""
    best = ocp.checkpoint_managers.BestN(
        get_metric_fn=lambda metrics: metrics["accuracy"],
        n=1,
        keep_checkpoints_without_metrics=False,
    )
    latest = ocp.checkpoint_managers.LatestN(config.keep)
    policy = ocp.checkpoint_managers.AnyPreservationPolicy([latest, best])
    # Without `best_fn` Orbax would forget the accuracies, and so the best step, when it restarts.
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=best.get_metric_fn)
    directory = checkpoint_directory(workdir)
    _check_accuracies(directory)
    hide_raised_exceptions()
    return ocp.CheckpointManager(directory, options=options)


def _check_accuracies(directory: epath.Path) -> None:
    """Orbax reads the accuracy of every checkpoint, and not only of the one to restore."""
    for file in sorted(directory.glob("*/metrics/metrics")):
        try:
            float(json.loads(file.read_text())["accuracy"])
        except (ValueError, TypeError, KeyError):
            step = file.parent.parent
            raise CheckpointError(
                f"checkpoint {step} is damaged: its file metrics/metrics cannot be read; remove "
                "that folder to continue from the other checkpoints"
            ) from None


def save(
    manager: ocp.CheckpointManager,
    state: TrainState,
    iterator_state: dict[str, Any],
    accuracy: float | None,
    unevaluated: dict[str, float] | None = None,
) -> None:
    """Starts to write a checkpoint of the state's step; returns before it is on disk.

    `accuracy` is the held-out mean reward of that step, None if it was not evaluated. NaN, where no
    answer has a score, counts as None, because it would be taken for the best. `unevaluated` has
    the metrics of a step that was stopped before its evaluation; `restore` gives them back.
    """
    step = int(state.step)
    if accuracy is not None and math.isnan(accuracy):
        accuracy = None
    if unevaluated is not None:
        iterator_state = iterator_state | {_UNEVALUATED: unevaluated}
    with without_metric_warning():
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(iterator_state)
            ),
            metrics=None if accuracy is None else {"accuracy": accuracy},
        )


def save_and_hash(
    manager: ocp.CheckpointManager, sums: ChecksumWriter, state: TrainState, *more: Any
) -> None:
    """`save`, after the checksums of the checkpoint before it were begun."""
    manager.wait_until_finished()  # as Orbax does
    sums.start()
    save(manager, state, *more)
    sums.add(int(state.step))


def restore(
    manager: ocp.CheckpointManager, like: TrainState, step: int | None = None
) -> tuple[TrainState, dict[str, Any]]:
    """The state and the data iterator's state of a step (None: the latest).

    `like` has the shapes and shardings of the state.

    Raises:
        CheckpointError: there is none, it cannot be read, or it has the shapes of other networks.
    """
    where = manager.directory
    step = manager.latest_step() if step is None else step
    if step is None:
        raise CheckpointError(f"{where} has no checkpoint; check --workdir")
    args = ocp.args.Composite(state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore())
    _check_undamaged(epath.Path(where), step)
    try:
        restored = manager.restore(step, args=args)
    except Exception as error:  # Orbax also raises bare exceptions for damaged files
        raise CheckpointError(
            f"checkpoint {where}/{step} cannot be read: {_reason(error)} "
            "(incomplete, or of a run with other networks); remove that folder to resume from an "
            "earlier one, or give another --workdir"
        ) from error
    return restored["state"], restored["data"]


def take_unevaluated(data_state: dict[str, Any]) -> dict[str, float] | None:
    """The metrics of a step whose evaluation is missing, taken out of the iterator's state."""
    return data_state.pop(_UNEVALUATED, None)


def is_run(path: str) -> bool:
    """Whether a directory is the workdir of a run, with settings and checkpoints."""
    return (absolute(path) / _SETTINGS).is_file() and checkpoint_directory(path).is_dir()


def read_settings(workdir: str) -> Config:
    """The settings of a run, from its config.json.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    file = absolute(workdir) / _SETTINGS
    if not file.is_file():
        raise CheckpointError(f"{workdir} has no {_SETTINGS}; give the workdir of a run")
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise CheckpointError(
            f"{file} is not JSON ({error}); give another run, or copy the file from a run with the "
            "same settings"
        ) from error
    if not isinstance(settings, dict):
        raise CheckpointError(
            f"{file} has no settings; give another run, or copy the file from a run with the same "
            "settings"
        )
    try:
        return from_dict(settings)
    except ConfigError as error:
        raise CheckpointError(
            f"{file} is of another version of asyppo_jax: {error}; load it with that version"
        ) from error


def saved_steps(workdir: str) -> list[int]:
    """The steps of the finished checkpoints in `workdir`, in order."""
    directory = checkpoint_directory(workdir)
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []


def choose_step(workdir: str, step: int | Literal["latest", "best"]) -> int:
    """The step of a checkpoint in `workdir`: the latest, the best, or the given one if it exists.

    "best" is the checkpoint on disk with the highest held-out mean reward in `metrics.jsonl`; on a
    tie, the earliest.

    Raises:
        CheckpointError: there is no such checkpoint; the message names those that exist.
    """
    steps = saved_steps(workdir)
    if not steps:
        raise CheckpointError(f"{workdir} has no finished checkpoint; give a run that saved one")
    if step == "latest":
        return steps[-1]
    if step == "best":
        rows = read_metrics(absolute(workdir) / METRICS_FILE)
        accuracies = {
            row["step"]: row["evaluate/accuracy"]
            for row in rows
            if row["step"] in steps and row.get("evaluate/accuracy") is not None
        }
        if not accuracies:
            raise CheckpointError(
                f"no checkpoint of {workdir} was evaluated, so none is the best; "
                f"give one of the steps {_listed(steps)}"
            )
        return max(sorted(accuracies), key=lambda s: accuracies[s])
    if isinstance(step, str):
        raise CheckpointError(f'step is {step!r}; give a step number, "latest" or "best"')
    if step not in steps:
        raise CheckpointError(
            f"{workdir} has no checkpoint of step {step}; give one of the steps {_listed(steps)}"
        )
    return step


def restore_parts(workdir: str, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """The fields of a saved `TrainState` that `like` has, with its shapes and shardings.

    Other fields, such as the optimizer states, are not read and cost neither memory nor time.

    Raises:
        CheckpointError: it cannot be read, or it has the shapes of other networks.
    """
    path = state_directory(workdir, step)
    args = ocp.args.PyTreeRestore(
        item=like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
        partial_restore=True,
    )
    _check_undamaged(path.parent.parent, step)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(path, args=args)
    except Exception as error:  # Orbax also raises bare exceptions for damaged files
        raise CheckpointError(
            f"checkpoint {path.parent} cannot be read: {_reason(error)} (incomplete, or of a run "
            "with other networks); give another step or another run"
        ) from error


def _check_undamaged(directory: epath.Path, step: int) -> None:
    if damage := find_damage(directory, step):
        raise CheckpointError(
            f"checkpoint {directory}/{step} is damaged: {damage}; remove that folder to continue "
            "from the checkpoint before it"
        )


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def has_trained(workdir: str) -> bool:
    """Whether a directory has the metrics of a training step, or a checkpoint.

    Only such a directory belongs to its run. A run that fails earlier leaves nothing to protect.
    """
    file = absolute(workdir) / METRICS_FILE
    rows = read_metrics(file) if file.is_file() else []
    return any(row["step"] > 0 for row in rows) or bool(saved_steps(workdir))


def describe_kept(workdir: str, number: int | None = signal.SIGINT) -> str:
    """What a run that a signal, or None: something else, stopped has kept, and how to go on."""
    by_name = number not in (None, signal.SIGINT)
    stopped = f"stopped by {signal.Signals(number).name}" if by_name else "stopped"
    if steps := saved_steps(workdir):
        return (
            f"{stopped}; the last checkpoint is of step {steps[-1]}, "
            "and the same command continues from there"
        )
    return f"{stopped} before the first checkpoint; the same command starts from the beginning"


def check_same_run(workdir: str, settings: dict[str, Any]) -> None:
    """Checks that no run with other settings has trained in a directory.

    Fields marked `MayChange` in `config.settings` may differ.

    Raises:
        CheckpointError: `workdir` belongs to a run with other settings; the first one is named.
    """
    file = epath.Path(workdir) / _SETTINGS
    if not (file.exists() and has_trained(workdir)):
        return
    before, now = flatten(read_settings(workdir)), flatten(from_dict(settings))
    changeable = may_change()
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and name not in changeable:
            raise CheckpointError(
                f"{workdir} holds a run with config.{name} = {before.get(name)!r}, this one has "
                f"{now.get(name)!r}; give another --workdir, or the same settings to resume"
            )


def write_settings(workdir: str, settings: dict[str, Any]) -> None:
    """Writes a run's settings into its workdir; call it after all inputs were checked.

    The first process writes, and every process checks that it sees the file.

    Raises:
        CheckpointError: on every process, if they do not share the directory.
    """
    file = epath.Path(workdir) / _SETTINGS
    sum_over_hosts(np.int32(1))  # every process has checked the earlier settings
    if is_first():
        file.parent.mkdir(parents=True, exist_ok=True)
        content = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
        if not (file.is_file() and file.read_bytes() == content):
            write_whole(file, content)
    sum_over_hosts(np.int32(1))  # it is written
    unseen = int(sum_over_hosts(np.int32(not file.exists())))
    if unseen:
        raise CheckpointError(
            f"{unseen} of {jax.process_count()} processes do not see {file}, which the first one "
            "wrote; give a --workdir that all share, such as gs://BUCKET/RUN"
        )


_SETTINGS, _UNEVALUATED = "config.json", "unevaluated"
