"""Submits a training job to a TPU slice of a GKE cluster with xpk.

    python -m experiments.launch.gke --cluster=C --project=P --zone=Z --workload=NAME \
        --tpu_type=v5litepod-16 --image=IMAGE --config=configs/NAME.py --workdir=gs://BUCKET/RUN

Flags after a lone `--` are passed to experiments.train, and are checked here first. With --dry-run
the command is only printed. See experiments/launch/README.md.
"""

import re
import sys

from absl import app, flags

from asyppo_jax.config import ConfigError, UserError
from experiments.launch.commands import (
    check_mesh,
    check_run,
    parse_launcher_flags,
    run,
    training,
)

_CLUSTER = flags.DEFINE_string("cluster", None, "The GKE cluster, made by xpk.", required=True)
_PROJECT = flags.DEFINE_string("project", None, "The Google Cloud project.", required=True)
_ZONE = flags.DEFINE_string("zone", None, "The cluster's zone.", required=True)
_WORKLOAD = flags.DEFINE_string("workload", None, "A name for the job.", required=True)
_TPU_TYPE = flags.DEFINE_string("tpu_type", None, "The slice: v5litepod-16, ...", required=True)
_IMAGE = flags.DEFINE_string("image", None, "The image built by the Dockerfile.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "The run's file in configs/.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "gs://BUCKET/RUN.", required=True)
_MAX_RESTARTS = flags.DEFINE_integer("max_restarts", 10, "Maximum restarts of a failed job.")
_ENV_FILE = flags.DEFINE_string(
    "env_file", None, "A file of lines NAME=value: environment variables of the job."
)
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "Print the command without running it.")


def command(extra: list[str]) -> list[str]:
    """The xpk command; a restarted job resumes from the last checkpoint in the workdir."""
    job = training("python", _CONFIG.value, _WORKDIR.value, extra)
    xpk = ["xpk", "workload", "create", f"--workload={_WORKLOAD.value}"]
    xpk += [f"--cluster={_CLUSTER.value}", f"--project={_PROJECT.value}", f"--zone={_ZONE.value}"]
    # One slice only, because the mesh does not consider the slower network between slices.
    xpk += [f"--tpu-type={_TPU_TYPE.value}", "--num-slices=1", f"--docker-image={_IMAGE.value}"]
    # If one worker is preempted the others exit with an error, which xpk counts as a user error.
    xpk += [f"--max-restarts={_MAX_RESTARTS.value}", "--restart-on-user-code-failure"]
    xpk += [f"--env-file={_ENV_FILE.value}"] if _ENV_FILE.value else []
    return [*xpk, f"--command={job}"]


def main(argv: list[str]) -> None:
    extra = argv[1:]
    try:
        config = check_run(
            _CONFIG.value, _WORKDIR.value, extra, env_file=_ENV_FILE.value, committed=False
        )
        check_mesh(config, _TPU_TYPE.value)
        if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", _WORKLOAD.value):
            raise ConfigError(
                f"--workload is {_WORKLOAD.value!r}; Kubernetes takes small letters, digits and -, "
                "with a letter first, such as my-run"
            )
        run([command(extra)], dry_run=_DRY_RUN.value)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_launcher_flags)
