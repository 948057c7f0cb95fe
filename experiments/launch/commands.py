"""Functions of both launchers: build a worker's training command, and run or print commands."""

import shlex
import subprocess
from collections.abc import Sequence

from asyppo_jax.config import ConfigError

# Extra packages for a bucket: one for its files, one for Orbax checkpoints and TensorBoard there.
BUCKET_PACKAGES = ("gcsfs", "google-cloud-storage")


def training(python: str, config: str, workdir: str, flags: Sequence[str]) -> str:
    """The shell command that every worker runs; `flags` are more flags of experiments.train.

    Raises:
        ConfigError: `workdir` is not in a bucket, so the workers would not share it.
    """
    if not workdir.startswith("gs://"):
        raise ConfigError(
            f"--workdir is {workdir!r}; give one that all workers share: gs://BUCKET/RUN"
        )
    main = [python, "-u", "-m", "experiments.train", "--distributed"]
    return shlex.join([*main, f"--config={config}", f"--workdir={workdir}", *flags])


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
