"""Trains a run: `python -m experiments.train --config=configs/NAME.py --workdir=DIR`.

Any setting can be given as a flag too: `--config.section.field=value`. Several hosts run one job by
starting this command on each of them with `--distributed` (see experiments/launch/).
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from asyppo_jax.config import Config, ConfigError, UserError
from experiments.command_line import parse_flags, read_config, use_compile_cache

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and plots go.")
_COMPILE_CACHE = flags.DEFINE_string(
    "compile_cache",
    None,
    "Where compiled programs are kept for the next start; empty: nowhere. If not given, "
    "$JAX_COMPILATION_CACHE_DIR or ~/.cache/asyppo_jax.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes of a run; Cloud TPU, GKE and Slurm say which."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "Elsewhere: host:port of process 0; with the next two."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the run has.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout", 300.0, "Seconds to wait at the start for the other processes.", lower_bound=1.0
)


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its threads' doings at INFO
    try:
        config = _read_config()
        use_compile_cache(_COMPILE_CACHE.value)
        _join()
        # Late, so that a wrong setting is told at once and not after the imports.
        from asyppo_jax.train import train

        workdir = str(_WORKDIR.value)
        summary = train(config, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    if summary:  # the first process's
        print(closing_lines(summary, workdir))


def _join() -> None:
    by_hand = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if _DISTRIBUTED.value or by_hand != (None, None, None):
        from asyppo_jax.runtime.multi_host import initialize

        initialize(*by_hand, timeout=_JOIN_TIMEOUT.value)


def _read_config() -> Config:
    if _WORKDIR.value is None:
        raise ConfigError("--workdir=DIR is missing; a run keeps its checkpoints and metrics there")
    return read_config(_CONFIG.value)


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
            f"then    python -m experiments.evaluate --checkpoint={workdir} --benchmark=gsm8k; "
            f"python -m experiments.export --workdir={workdir} --output=DIR",
            "next    another seed: --config.seed=1 and another --workdir; no masks: "
            "--config.algorithm.advantage_mask_fraction=0 "
            "--config.algorithm.entropy_mask_fraction=0; more critics: "
            "--config.algorithm.num_critics=4",
        ]
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
