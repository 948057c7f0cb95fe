"""Functions of both launchers: check a run, build a worker's command, and run or print commands."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from asyppo_jax.config import Config, ConfigError
from asyppo_jax.config.checks import check_divides_data_axis
from asyppo_jax.planning.accelerators import chips_of_type
from experiments import train
from experiments.command_line import read_flags
from experiments.launch.worker_files import (
    check_reachable,
    differs_from_commit,
    environment_of_workers,
)

# The extras of pyproject.toml that the workers install.
EXTRAS = "tpu,gcs,parquet,tasks"


def parse_launcher_flags(argv: list[str]) -> list[str]:
    """The action and what is behind a lone `--`; exits with a one-line error if a flag is wrong."""
    of_launcher = argv[: argv.index("--")] if "--" in argv else argv
    of_training = flags.FlagValues()
    train.define_flags(of_training)
    try:
        for flag in of_launcher[1:]:
            name = flag.lstrip("-").partition("=")[0].removeprefix("no")
            is_for_training = name in of_training and name not in flags.FLAGS
            if flag.startswith("-") and (name.startswith("config.") or is_for_training):
                raise ConfigError(
                    f"{flag} is for the run, not for the launcher; settings for the run stand "
                    f"behind a lone --, at the end of the command: -- {flag}"
                )
        return read_flags(argv[: len(of_launcher)], flags.FLAGS) + argv[len(of_launcher) + 1 :]
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # `--help | head`
        sys.exit(1)


def training(python: str, config: str, workdir: str, extra: Sequence[str]) -> str:
    """The shell command that every worker runs; `extra` are more flags of experiments.train."""
    main = [python, "-u", "-m", "experiments.train", *_training_flags(config, workdir, extra)]
    return shlex.join(main)


def _training_flags(config: str, workdir: str, extra: Sequence[str]) -> list[str]:
    return ["--distributed", f"--config={config}", f"--workdir={workdir}", *extra]


def check_run(
    config: str,
    workdir: str,
    extra: Sequence[str],
    *,
    env_file: str | None = None,
    committed: bool = True,
) -> Config:
    """The config that the workers will read, parsed here as experiments.train does there.

    `env_file` has environment variables of the workers, `committed` is that of `check_reachable`.

    Raises:
        ConfigError: the file does not exist or is not in this repository, a setting or a flag is
            wrong, `workdir` is not in a bucket, so the workers would not share it, or the run reads
            what the workers do not have.
    """
    check_env_file(env_file)
    path = Path(config_file(config))
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"--config is {config!r}, but the workers read their copy of this repository; give the "
            "path from its top, such as configs/NAME.py"
        )
    values = flags.FlagValues()
    train.define_flags(values)
    for flag in flags.FLAGS.flags_by_module_dict()[logging.__name__]:  # --verbosity and others
        values[flag.name] = flag
    argv = ["experiments.train", *_training_flags(config, workdir, extra)]
    with environment_of_workers(env_file):
        rest = read_flags(argv, values, program="python -m experiments.train")
        settings = train.read_run(rest, values)
    if not values.workdir.startswith("gs://"):
        raise ConfigError(
            f"--workdir is {values.workdir!r}; give one that all workers share: gs://BUCKET/RUN"
        )
    check_reachable(settings, committed=committed)
    return settings


def config_file(config: str) -> str:
    """The file in the value of --config, which is FILE or FILE:ARGUMENT."""
    return config.partition(":")[0]


def check_committed(file: str) -> None:
    """Raises `ConfigError` if git knows that the last commit, which the workers have, differs."""
    if differs_from_commit(file):
        raise ConfigError(
            f"{file} differs from the last commit, which setup gives to the workers; commit it and "
            "run setup again"
        )


def check_mesh(config: Config, accelerator_type: str) -> None:
    """Raises if the mesh does not fit a slice such as "v5litepod-16".

    Raises:
        AcceleratorError: there is no such accelerator type.
        ConfigError: the mesh does not fit its chips.
    """
    chips = chips_of_type(accelerator_type)
    try:
        check_divides_data_axis(config, chips)
    except ConfigError as error:
        raise ConfigError(f"the config does not fit {accelerator_type}: {error}") from error


def check_env_file(file: str | None) -> None:
    """Raises `ConfigError` if an environment file is given and does not exist."""
    if file and not Path(file).is_file():
        raise ConfigError(f"--env_file is {file!r}, which is not a file; check its path")


def run(commands: Sequence[Sequence[str]], *, dry_run: bool) -> None:
    """Prints each command and, unless it is a dry run, runs it; exits at the first that fails."""
    for command in commands:
        print(shlex.join(command), flush=True)
        if dry_run:
            continue
        try:
            status = subprocess.run(command).returncode
        except FileNotFoundError as error:
            raise ConfigError(
                f"{command[0]} is not installed here; see experiments/launch/README.md"
            ) from error
        if status:
            raise SystemExit(status)
