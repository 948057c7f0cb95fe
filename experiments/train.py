"""Starts or resumes a run: `python -m experiments.train --config=configs/NAME.py --workdir=DIR`.

Any setting can also be set by a flag: `--config.section.field=value`. To run one job on several
hosts, start this command with `--distributed` on each of them (see experiments/launch/).
"""

import os
import signal
import sys
from functools import partial
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from asyppo_jax.config import Config, ConfigError, UserError
from experiments.command_line import (
    parse_flags,
    read_config,
    stop,
    use_compile_cache,
)
from experiments.main import command_line


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program in `values`: `flags.FLAGS`, or those of a launcher."""
    config_flags.DEFINE_config_file(
        "config", None, "The run's file in configs/.", flag_values=values
    )
    flags.DEFINE_string(
        "workdir", None, "The directory of checkpoints, metrics and plots.", flag_values=values
    )
    flags.DEFINE_string(
        "compile_cache",
        None,
        "The directory of the compilation cache; empty: no cache. Default: "
        "$JAX_COMPILATION_CACHE_DIR, else ~/.cache/asyppo_jax.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "Join a run of several processes. On Cloud TPU, GKE and Slurm the processes are detected.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator_address",
        None,
        "On other systems: host:port of process 0. Needs --num_processes and --process_id.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "Number of processes of the run.", flag_values=values
    )
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", flag_values=values)
    flags.DEFINE_float(
        "join_timeout",
        300.0,
        "Maximum seconds to wait for the other processes at the start.",
        lower_bound=1.0,
        flag_values=values,
    )


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs what each of its threads does
    values = flags.FLAGS
    try:
        config = read_run(argv, values)
        use_compile_cache(values.compile_cache)
        _join(values)
        # Imported late, so that a wrong setting is reported before the slow imports.
        from asyppo_jax.runs.interrupt import ON_STUCK
        from asyppo_jax.train import train

        workdir = str(values.workdir)
        ON_STUCK.set(partial(_stop, workdir))
        summary = train(config, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as error:
        _stop(str(values.workdir), getattr(error, "number", signal.SIGINT))
    if summary:  # empty except in the first process
        print(closing_lines(workdir, config.algorithm.num_critics))


def read_run(argv: list[str], values: flags.FlagValues) -> Config:
    """The config of the parsed flags `values`; `argv` has what was not a flag.

    Raises:
        ConfigError: there is an argument that is not a flag, no workdir, or no valid config.
    """
    if len(argv) > 1:
        raise ConfigError(
            f"{argv[1]!r} is not a flag; settings are flags, such as --config.section.field=value"
        )
    if not values.workdir:
        raise ConfigError("--workdir=DIR is missing; checkpoints and metrics are written there")
    return read_config(values.config)


def _join(values: flags.FlagValues) -> None:
    processes = values.coordinator_address, values.num_processes, values.process_id
    if values.distributed or processes != (None, None, None):
        from asyppo_jax.runtime.multi_host import initialize

        initialize(*processes, timeout=values.join_timeout)


def _stop(workdir: str, number: int) -> NoReturn:
    """Says what is kept after a signal, and ends the process with 128 + the signal's number."""
    import jax

    from asyppo_jax.runs.checkpoint import describe_kept

    text = f"\n{describe_kept(workdir, number)}"
    if jax.process_count() > 1:  # the coordinator must not be gone before the others
        print(text, file=sys.stderr, flush=True)
        sys.exit(128 + number)
    stop(text, 128 + number)


def closing_lines(workdir: str, num_critics: int) -> str:
    """What to do with a finished run, and what to try next."""
    lines = [
        "then",
        f"  {command_line('evaluate')} --checkpoint={workdir} --benchmark=held_out",
        f"  {command_line('export')} --workdir={workdir} --output={workdir}/export",
    ]
    if os.path.isdir(f"{workdir}/rollouts"):
        lines.append(f"  {command_line('inspect')} --rollouts={workdir}/rollouts")
    lines += ["next, with another --workdir", "  another seed  --config.seed=1"]
    if not os.path.isdir(f"{workdir}/rollouts"):
        lines.append("  see tokens    --config.log.rollouts_every=10, then experiments.inspect")
    if num_critics > 1:
        lines += [
            "  no masks      --config.algorithm.advantage_mask_fraction=0 "
            "--config.algorithm.entropy_mask_fraction=0",
            f"  more critics  --config.algorithm.num_critics={2 * num_critics}",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main, flags_parser=parse_flags)
