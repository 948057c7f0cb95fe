"""A workdir that cannot be used, or a disk that is full: one sentence instead of a traceback."""

import errno
import os
from collections.abc import Iterator

from asyppo_jax.config import UserError
from asyppo_jax.runs.checkpoint import CheckpointError, describe_kept, saved_steps
from asyppo_jax.runs.metrics import METRICS_FILE, read_metrics
from asyppo_jax.runtime.paths import (
    DISK_FULL,
    absolute,
    check_packages,
    checkpoint_directory,
    in_bucket,
)

# Of a file in the workdir only: elsewhere these may be a defect.
_REFUSED = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class DiskError(UserError, OSError):
    """A workdir or disk that cannot be written; the message names the file and the fix."""


def check_workdir(workdir: str) -> None:
    """Checks, before the slow part of a start, that a run can write to its workdir.

    Raises:
        ConfigError: it is in a bucket, and a package for that is missing.
        DiskError: it is a file, or it cannot be written.
        CheckpointError: a run has trained there, but its checkpoints or its metrics are gone.
    """
    check_packages(workdir)
    if in_bucket(workdir):
        return
    directory = absolute(workdir)
    existing = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise DiskError(
            f"--workdir={workdir} cannot be made, because {existing} is a file; give a directory"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DiskError(
            f"{existing} cannot be written, so no run can be kept in --workdir={workdir}; make it "
            "writable, or give another directory"
        )
    _check_complete(workdir)


def _check_complete(workdir: str) -> None:
    """A run that lost its checkpoints or metrics would start again, and empty what it has left."""
    metrics = absolute(workdir) / METRICS_FILE
    if not metrics.is_file():
        if steps := saved_steps(workdir):
            raise CheckpointError(
                f"{workdir} has a checkpoint of step {steps[-1]} but no {METRICS_FILE}; put it "
                "back to resume, remove the folder checkpoints/ to start again, or give another "
                "--workdir"
            )
    elif not checkpoint_directory(workdir).exists():
        steps = [row["step"] for row in read_metrics(metrics)]
        if steps and steps[-1] > 0:
            raise CheckpointError(
                f"{workdir} has the metrics of {steps[-1]} steps but no folder checkpoints/; put "
                f"it back to resume, remove {METRICS_FILE} to start again, or give another "
                "--workdir"
            )


def raise_if_disk_error(error: BaseException, workdir: str) -> None:
    """Raises `DiskError` if a file could not be written, which `error` or its causes say."""
    if isinstance(error, UserError):
        return
    for cause in _causes(error):
        if reason := _disk_reason(cause, str(absolute(workdir))):
            raise DiskError(
                f"{reason}; make room for the run's files, and make {workdir} writable "
                f"({describe_kept(workdir, None)})"
            ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, those that it was raised from, and those that were being handled."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _disk_reason(error: BaseException, workdir: str) -> str:
    """The file that cannot be written, and why; "" if that is not what the exception says."""
    if isinstance(error, OSError) and error.errno is not None:
        file = str(error.filename) if error.filename is not None else ""
        ours = file.startswith(workdir)
        if error.errno in DISK_FULL or (error.errno in _REFUSED and ours):
            return f"{file or 'a file'} cannot be written: {error.strerror}"
    elif workdir in str(error):  # Orbax passes on the text of TensorStore
        for number in DISK_FULL:
            if os.strerror(number) in str(error):
                return f"a checkpoint in {workdir} cannot be written: {os.strerror(number)}"
    return ""
