"""Functions of both launchers: check a run, build a worker's command, and run or print commands."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from asyppo_jax.config import Config, ConfigError
from asyppo_jax.config.checks import check_divides_data_axis, mesh_shape
from experiments import train
from experiments.command_line import read_flags

# Extra packages for a bucket: one for its files, one for Orbax checkpoints and TensorBoard there.
BUCKET_PACKAGES = ("gcsfs", "google-cloud-storage")
# Chips per unit of the number in a slice's type: v5p counts the two cores of each chip.
_CHIPS_PER_UNIT = {"v5litepod": 1.0, "v5p": 0.5, "v6e": 1.0}


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


def check_run(config: str, workdir: str, extra: Sequence[str]) -> Config:
    """The config that the workers will read, parsed here as experiments.train does there.

    Raises:
        ConfigError: the file does not exist or is not in this repository, a setting or a flag is
            wrong, or `workdir` is not in a bucket, so the workers would not share it.
    """
    values = flags.FlagValues()
    train.define_flags(values)
    for flag in flags.FLAGS.flags_by_module_dict()[logging.__name__]:  # --verbosity and others
        values[flag.name] = flag
    argv = ["experiments.train", *_training_flags(config, workdir, extra)]
    rest = read_flags(argv, values, program="python -m experiments.train")
    settings = train.read_run(rest, values)
    if not values.workdir.startswith("gs://"):
        raise ConfigError(
            f"--workdir is {values.workdir!r}; give one that all workers share: gs://BUCKET/RUN"
        )
    path = Path(config_file(config))
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"--config is {config!r}, but the workers read their copy of this repository; give the "
            "path from its top, such as configs/NAME.py"
        )
    return settings


def config_file(config: str) -> str:
    """The file in the value of --config, which is FILE or FILE:ARGUMENT."""
    return config.partition(":")[0]


def check_committed(file: str) -> None:
    """Raises `ConfigError` if git knows that the last commit, which the workers have, differs.

    Without git, or outside a git checkout, this cannot be known.
    """
    if shutil.which("git") is None:
        return
    command = ["git", "status", "--porcelain", "--ignored", "--", file]
    status = subprocess.run(command, capture_output=True, text=True)
    if status.returncode == 0 and status.stdout:
        raise ConfigError(
            f"{file} differs from the last commit, which setup gives to the workers; commit it and "
            "run setup again"
        )


def check_mesh(config: Config, tpu_type: str) -> None:
    """Raises `ConfigError` if the mesh does not fit a slice such as "v5litepod-16".

    A type that this launcher does not know is not checked.
    """
    match = re.fullmatch(r"(\w+)-(\d+)", tpu_type)
    if match is None:
        raise ConfigError(
            f"--tpu_type is {tpu_type!r}; give a type with its number of chips or cores, such as "
            "v5litepod-16"
        )
    if match[1] not in _CHIPS_PER_UNIT:
        return
    try:
        data, _ = mesh_shape(config.mesh, int(int(match[2]) * _CHIPS_PER_UNIT[match[1]]))
        check_divides_data_axis(config, data)
    except ConfigError as error:
        raise ConfigError(f"the config does not fit {tpu_type}: {error}") from error


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
