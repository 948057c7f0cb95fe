"""Metrics and summary of a run on disk, and the check that losses and gradients are finite.

Everything here runs on the host, outside of jit, on plain Python numbers.
"""

import html
import importlib
import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

from etils import epath

from asyppo_jax.config import ConfigError, LogConfig, UserError
from asyppo_jax.runs.tensorboard import EventFile
from asyppo_jax.runtime.multi_host import is_first
from asyppo_jax.runtime.paths import absolute, in_bucket, open_to_append, write_whole

METRICS_FILE = "metrics.jsonl"
_PROBLEMS_FILE = "problems.json"


class MetricsError(UserError, ValueError):
    """A metrics file that cannot be read; the message names the line and says how to fix it."""


class NonFiniteError(UserError, ArithmeticError):
    """A loss or a gradient norm is NaN or infinite; the message says what to try."""


class MetricWriter:
    """Appends metrics to `workdir/metrics.jsonl` and, if set in `log`, TensorBoard and W&B.

    Each call writes one JSON line, `{"step": 3, "actor/loss": 0.1}`; NaN and infinity become null.
    `start_step` is the last step whose metrics a run that resumes does not write again. Later
    lines, and a last line cut off by a kill, are dropped, so that the file of a resumed run has the
    same steps as that of an uninterrupted run. Earlier steps without a line are printed in one
    sentence. With `start_step` None the run starts, and the file is emptied. Write the metrics of a
    step before its checkpoint, because a resumed run does not repeat that step.

    Raises `ConfigError` if `log.wandb_project` is set but wandb is not installed (on every host, so
    that no host waits for another), and `MetricsError` if the existing file is broken before its
    last line.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        log: LogConfig,
        start_step: int | None,
        *,
        is_writer: bool = True,
    ) -> None:
        wandb = _import_wandb(log.wandb_project) if log.wandb_project else None
        self._file, self._tensorboard, self._wandb_run = None, None, None
        if not is_writer:
            return
        workdir = epath.Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / METRICS_FILE
        _drop_later_lines(path, start_step)
        if start_step is not None and (missing := describe_missing_steps(path, start_step)):
            print(missing)
        self._file = open_to_append(path)
        if log.tensorboard:  # purge_step hides events of an earlier process from that step on
            purge_step = 0 if start_step is None else start_step + 1
            self._tensorboard = EventFile(str(workdir / "tensorboard"), purge_step)
        if wandb is not None:
            self._wandb_run = wandb.init(
                project=log.wandb_project,
                name=absolute(workdir).name,
                dir=None if in_bucket(workdir) else str(workdir),
                id=_wandb_id(workdir, start_step),
                resume="allow",
            )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes and flushes the metrics of one step; each value must convert to `float`."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in metrics.items()}
        self._file.write((_to_json({"step": int(step), **values}) + "\n").encode())
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()
        if self._wandb_run is not None:
            self._wandb_run.log(values, step=step)

    def write_text(self, step: int, name: str, text: str) -> None:
        """Shows a text in TensorBoard, as it is written; nothing without TensorBoard."""
        if self._tensorboard is not None:
            self._tensorboard.add_text(name, f"<pre>{html.escape(text)}</pre>", step)
            self._tensorboard.flush()

    def close(self) -> None:
        """Closes the files; later writes are ignored."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb_run is not None:
            self._wandb_run.finish()


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, `{"step": int, name: float or None}`, in file order.

    An incomplete last line is skipped, so that the file of a live run can be read. Raises
    `MetricsError` if the file is missing or another line is broken.
    """
    path = epath.Path(path)
    if not path.is_file():
        raise MetricsError(f"{path} does not exist; give the workdir of a run that has started")
    return [row for _, row in _read_lines(path)]


def _read_lines(path: epath.Path) -> list[tuple[bytes, dict[str, Any]]]:
    lines = path.read_bytes().splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise MetricsError(
                f"{path}, line {number}, is not JSON ({error}); remove that line"
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise MetricsError(f'{path}, line {number}, has no integer "step"; remove that line')
        rows.append((line.rstrip(b"\n") + b"\n", row))
    return rows


def _drop_later_lines(path: epath.Path, start_step: int | None) -> None:
    if not path.is_file():
        return
    content = b""
    if start_step is not None:
        content = b"".join(line for line, row in _read_lines(path) if row["step"] <= start_step)
    if content != path.read_bytes():
        write_whole(path, content)


def describe_missing_steps(path: epath.PathLike, step: int) -> str:
    """Which steps up to `step` have no line in `metrics.jsonl`, in a sentence; "" if all have one.

    After a loss of power the file may lack its last lines, though a later checkpoint is there.
    """
    path = epath.Path(path)
    rows = read_metrics(path) if path.is_file() else []
    missing = set(range(step + 1)) - {row["step"] for row in rows}
    if not missing:
        return ""
    starts = sorted(s for s in missing if s - 1 not in missing)
    ends = sorted(s for s in missing if s + 1 not in missing)
    spans = [f"{a} to {b}" if b > a else f"{a}" for a, b in zip(starts, ends, strict=True)]
    return (
        f"{path} has no line of step{'s' if len(missing) > 1 else ''} {', '.join(spans)}: these "
        "metrics are lost, and nothing else is, because the checkpoint is later"
    )


def _to_json(value: Any, indent: int | None = None) -> str:
    # Python writes NaN and Infinity, which other JSON readers reject; here they become null.
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return json.dumps(finite, indent=indent)


def _import_wandb(project: str) -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"config.log.wandb_project is {project!r} but wandb is not installed; "
            "run `pip install wandb`, or leave the field empty"
        ) from error


def _wandb_id(workdir: epath.Path, start_step: int | None) -> str:
    # Stored in a file, so that a resumed run continues the same W&B run.
    path = workdir / "wandb_id.txt"
    if start_step is None or not path.is_file():
        write_whole(path, secrets.token_hex(8).encode())
    return path.read_text()


def write_summary(workdir: epath.PathLike, summary: Mapping[str, Any]) -> epath.Path:
    """Writes `workdir/summary.json` atomically; NaN and infinity become null. Returns its path."""
    path = epath.Path(workdir) / "summary.json"
    write_whole(path, (_to_json(summary, indent=2) + "\n").encode())
    return path


def elapsed_until(workdir: str, step: int) -> float:
    """The seconds that a run had taken after a step; 0 if it has no metrics until there."""
    rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
    return max((row["time/elapsed_s"] for row in rows if row["step"] <= step), default=0.0)


def write_problem_counts(workdir: str, training: int, held_out: int) -> None:
    """Writes how many problems a run uses, of those that its settings ask for."""
    if not is_first():
        return
    text = _to_json({"training": training, "held_out": held_out}) + "\n"
    write_whole(epath.Path(workdir) / _PROBLEMS_FILE, text.encode())


def read_problem_counts(workdir: str) -> dict[str, int]:
    """`{"training": n, "held_out": m}`; empty for a run that an earlier version started."""
    path = epath.Path(workdir) / _PROBLEMS_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def require_finite(step: int, metrics: Mapping[str, float], loss: str = "asyppo") -> None:
    """Raises `NonFiniteError` if a loss or a gradient norm of this step is NaN or infinite.

    Those are the metrics with "loss" or "grad_norm" in their name. `loss` is
    `config.algorithm.loss`. Call this before the step's metrics and checkpoint are written.
    """
    non_finite = {
        name: float(value)
        for name, value in metrics.items()
        if ("loss" in name or "grad_norm" in name) and not math.isfinite(value)
    }
    if not non_finite:
        return
    what = " and ".join(f"{name} is {value}" for name, value in non_finite.items())
    network = next(iter(non_finite)).split("/")[0]
    own = f"check the loss {loss}, " if network == "actor" and loss != "asyppo" else ""
    raise NonFiniteError(
        f"step {step}: {what}; the run stops, nothing of this step was saved, and earlier "
        f"checkpoints are intact; {own}try a lower config.{network}_optimizer.learning_rate or "
        f'max_grad_norm, or config.{network}.dtype = "float32"'
    )
