"""Trains a run: `python -m experiments.train --config=configs/NAME.py --workdir=DIR`.

Any setting can be given as a flag too: `--config.section.field=value`.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from asyppo_jax.config import Config, ConfigError, from_config_dict
from asyppo_jax.errors import UserError
from experiments.command_line import parse_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and plots go.")


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its threads' doings at INFO
    try:
        config = _read_config()
        # Late, so that a wrong setting is told at once and not after the imports.
        from asyppo_jax.train import train

        workdir = str(_WORKDIR.value)
        summary = train(config, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(closing_lines(summary, workdir))


def _read_config() -> Config:
    if _WORKDIR.value is None:
        raise ConfigError("--workdir=DIR is missing; a run keeps its checkpoints and metrics there")
    if _CONFIG.value is None:
        raise ConfigError("--config=configs/NAME.py is missing")
    try:
        return from_config_dict(_CONFIG.value)
    except OSError as error:  # the flag's value raises it at its first use
        reason = " ".join(str(error).split())
        raise ConfigError(f"the file of --config cannot be loaded: {reason}") from error


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


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
