"""Runs a training job on all workers of a Cloud TPU VM slice with gcloud.

    python -m experiments.launch.tpu_vm setup|train|log|stop --name=TPU --project=P --zone=Z [...]

`setup` copies the last commit to every worker and installs it. `train` starts the job on all
workers and returns; flags after a lone `--` are passed to experiments.train, and are checked here
first. Both copy the environment file, if there is one. `log` follows the log of a worker. `stop`
ends the job. With --dry-run the commands are only printed. See experiments/launch/README.md.
"""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from asyppo_jax.config import ConfigError, UserError
from experiments.launch.commands import (
    EXTRAS,
    check_committed,
    check_env_file,
    check_mesh,
    check_run,
    config_file,
    parse_launcher_flags,
    run,
    training,
)

_NAME = flags.DEFINE_string("name", None, "The TPU's name.", required=True)
_PROJECT = flags.DEFINE_string("project", None, "The Google Cloud project.", required=True)
_ZONE = flags.DEFINE_string("zone", None, "The TPU's zone.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "For train: the run's file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "For train: gs://BUCKET/RUN.")
_ENV_FILE = flags.DEFINE_string(
    "env_file",
    None,
    "For setup and train: a file of lines NAME=value: environment variables of the job.",
)
_ACCELERATOR_TYPE = flags.DEFINE_string(
    "accelerator_type", None, "For train: that of the TPU, such as v5p-32, to check the mesh."
)
_PACKAGES = flags.DEFINE_list(
    "packages", [], "For setup: more packages to install, such as wandb,datasets."
)
_WORKER = flags.DEFINE_string("worker", "0", "For log: the number of the worker.")
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "Print the commands without running them.")

HERE = "asyppo_jax"  # in the home directory of every worker
ENV_FILE = "asyppo_jax.env"


def setup_command(packages: Sequence[str]) -> str:
    """The install command of a worker; uv installs Python, because TPU images have an older one."""
    install = shlex.join(["-c", "constraints-py312.txt", "-e", f".[{EXTRAS}]", *packages])
    return " && ".join(
        [
            f"mkdir -p {HERE}",
            f"tar -xzf {HERE}.tar.gz -C {HERE}",
            f"cd {HERE}",
            # For pycosat, a dependency of reasoning-gym.
            "{ command -v cc > /dev/null || sudo apt-get install -y build-essential; }",
            "python3 -m pip install --quiet --user uv",
            "~/.local/bin/uv venv --quiet --clear --python 3.12 .venv",
            f"~/.local/bin/uv pip install --quiet --python .venv/bin/python {install}",
        ]
    )


def train_command(config: str, workdir: str, extra: list[str]) -> str:
    """The command that starts the job in the background of a worker, if no other job is running."""
    job = training(".venv/bin/python", config, workdir, extra)
    return "; ".join(
        [
            f"cd {HERE} || exit 1",
            'if kill -0 "$(cat run.pid)" 2> /dev/null',
            'then echo "a job is running here already; stop it first" >&2',
            "exit 1",
            "fi",
            f"if [ -f ~/{ENV_FILE} ]",
            "then set -a",
            f". ~/{ENV_FILE}",
            "fi",
            f"setsid nohup {job} >> run.log 2>&1 < /dev/null & echo $! > run.pid",
        ]
    )


def stop_command() -> str:
    """The command that ends the job of a worker, if there is one."""
    return f'kill "$(cat {HERE}/run.pid)" && rm {HERE}/run.pid'


def commands(action: str, extra: list[str]) -> list[list[str]]:
    """The commands to run on this machine for an action, after all that can be checked here.

    Raises:
        ConfigError: the action is unknown, or see `check_run` and the other checks.
    """
    gcloud = ["gcloud", "compute", "tpus", "tpu-vm"]
    if "," in _NAME.value:
        raise ConfigError(f"--name={_NAME.value} has a comma; a launcher starts one slice")
    name, location = _NAME.value, [f"--zone={_ZONE.value}", f"--project={_PROJECT.value}"]

    def ssh(command: str, worker: str = "all") -> list[str]:
        return [*gcloud, "ssh", name, f"--worker={worker}", *location, f"--command={command}"]

    def copy(file: str, target: str) -> list[str]:
        return [*gcloud, "scp", file, f"{name}:{target}", "--worker=all", *location]

    environment = []
    if _ENV_FILE.value:
        environment = [copy(_ENV_FILE.value, ENV_FILE), ssh(f"chmod 600 {ENV_FILE}")]
    if extra and action in ("setup", "log", "stop"):
        raise ConfigError(f"{action} takes no {extra[0]}; only train takes settings of the run")
    if action == "setup":
        check_env_file(_ENV_FILE.value)
        archive = str(Path(tempfile.gettempdir()) / f"{HERE}.tar.gz")
        steps = [["git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"]]
        steps.append(copy(archive, f"{HERE}.tar.gz"))
        return [*steps, *environment, ssh(setup_command(_PACKAGES.value))]
    if action == "train":
        if not (_CONFIG.value and _WORKDIR.value):
            raise ConfigError("train needs --config=configs/NAME.py and --workdir=gs://BUCKET/RUN")
        config = check_run(_CONFIG.value, _WORKDIR.value, extra, env_file=_ENV_FILE.value)
        check_committed(config_file(_CONFIG.value))
        if _ACCELERATOR_TYPE.value:
            check_mesh(config, _ACCELERATOR_TYPE.value)
        return [*environment, ssh(train_command(_CONFIG.value, _WORKDIR.value, extra))]
    if action == "log":
        return [ssh(f"tail -n 100 -f {HERE}/run.log", _WORKER.value)]
    if action == "stop":
        return [ssh(stop_command())]
    raise ConfigError(f"unknown action {action!r}; choose setup, train, log or stop")


def main(argv: list[str]) -> None:
    _, action, *extra = [*argv, ""] if len(argv) == 1 else argv
    try:
        run(commands(action, extra), dry_run=_DRY_RUN.value)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_launcher_flags)
