"""What both launchers share: a worker's command, and running commands or only showing them."""

import shlex
import subprocess
from collections.abc import Sequence

from asyppo_jax.config import ConfigError

# What a bucket needs besides the package: its files, and Orbax's checkpoints and TensorBoard there.
BUCKET_PACKAGES = ("gcsfs", "google-cloud-storage")


def training(python: str, config: str, workdir: str, flags: Sequence[str]) -> str:
    """The command that every worker runs, `flags` of experiments.train behind it, as shell text.

    Raises:
        ConfigError: `workdir` is not in a bucket: a worker's own disk is not seen by the others.
    """
    if not workdir.startswith("gs://"):
        raise ConfigError(
            f"--workdir is {workdir!r}; give one that all workers share: gs://BUCKET/RUN"
        )
    main = [python, "-u", "-m", "experiments.train", "--distributed"]
    return shlex.join([*main, f"--config={config}", f"--workdir={workdir}", *flags])


def run(commands: Sequence[Sequence[str]], *, dry_run: bool) -> None:
    """Shows each command and, unless it is a dry run, runs it; the first that fails ends it all."""
    for command in commands:
        print(shlex.join(command), flush=True)
        if dry_run:
            continue
        try:
            status = subprocess.run(command).returncode
        except FileNotFoundError as error:
            raise ConfigError(f"{command[0]} is not installed here; see the README") from error
        if status:
            raise SystemExit(status)
