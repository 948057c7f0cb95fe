"""When a run has nothing left to do: it has all its steps, or its critics explain enough."""

import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from asyppo_jax.config import Config
from asyppo_jax.runs.metrics import METRICS_FILE, read_metrics
from asyppo_jax.types import TrainState


def is_finished(state: TrainState, config: Config, workdir: str) -> bool:
    """Whether the state is that after the last step of a run."""
    step = int(state.step)
    if 0 < config.num_steps <= step:
        return True
    if step == 0 or config.value.stop_at_explained_variance is None:
        return False
    rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
    return any(passes_bar(config, row) for row in rows if row["step"] == step)


def is_evaluated(workdir: str, step: int) -> bool:
    """Whether the metrics of a step have its evaluation."""
    rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
    return any(row["step"] == step and "evaluate/accuracy" in row for row in rows)


def describe_finished(state: TrainState, config: Config) -> str:
    """Why there is nothing to do, and how to go on, in one sentence."""
    step, bar = int(state.step), config.value.stop_at_explained_variance
    if bar is not None and step < config.num_steps:
        return f"the run is finished: its explained variance reached {bar:g} at step {step}"
    return (
        f"the run is finished: config.num_steps is {config.num_steps}, and the last "
        f"checkpoint is of step {step}; a larger --config.num_steps continues it"
    )


def passes_bar(config: Config, metrics: Mapping[str, Any]) -> bool:
    """Whether a step ends a run of the critics only: they explain enough of the returns."""
    bar, explained = config.value.stop_at_explained_variance, "critic/explained_variance"
    return bar is not None and metrics.get(explained, -math.inf) >= bar
