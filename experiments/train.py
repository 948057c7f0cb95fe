"""Trains: `python -m experiments.train --config=configs/NAME.py --workdir=DIR [--config.a.b=value]`."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from asyppo_jax.checkpoint import CheckpointError
from asyppo_jax.config import ConfigError, from_config_dict
from asyppo_jax.metrics import MetricsError, NonFiniteError
from asyppo_jax.models.config import ModelError
from asyppo_jax.records import DataError

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and plots go.")

# What a user can mend; anything else is a defect and keeps its traceback.
_USER_ERRORS = (
    CheckpointError,
    ConfigError,
    DataError,
    MetricsError,
    ModelError,
    NonFiniteError,
)


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its threads' doings at INFO
    try:
        config = from_config_dict(_CONFIG.value)
        # Late, so that a wrong setting is told at once and not after the imports.
        from asyppo_jax.train import train

        summary = train(config, _WORKDIR.value)
    except _USER_ERRORS as error:
        sys.exit(f"error: {error}")
    print(closing_lines(summary, _WORKDIR.value))


def closing_lines(summary: dict, workdir: str) -> str:
    """What a run ends with: before and after, where the plot is, and what to try next."""
    before, after = summary["accuracy_before"], summary["accuracy_after"]
    return "\n".join(
        [
            "",
            f"held-out accuracy {before:.1%} -> {after:.1%} "
            f"in {summary['steps']} steps, {summary['seconds']:.0f} s (seed {summary['seed']})",
            f"plots   {', '.join(summary['plots'])}",
            f"metrics {workdir}/metrics.jsonl, {workdir}/summary.json, {workdir}/tensorboard",
            "next    another seed: --config.seed=1 and another --workdir; no masks: "
            "--config.algorithm.advantage_mask_fraction=0 "
            "--config.algorithm.entropy_mask_fraction=0; more critics: "
            "--config.algorithm.num_critics=4",
        ]
    )


def run() -> None:
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)


if __name__ == "__main__":
    run()
