"""The launchers: the commands that they run, and the effect of a worker's commands."""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from asyppo_jax.config import ConfigError, RewardConfig
from experiments.launch.commands import EXTRAS, check_committed, check_mesh, run, training
from experiments.launch.tpu_vm import stop_command, train_command
from experiments.launch.worker_files import check_reachable
from tests.tiny import make_config

ROOT = Path(__file__).parents[2]
TPU = ("--name=slice", "--project=mine", "--zone=near", "--dry-run")
JOB = ("--config=configs/tiny_test.py", "--workdir=gs://bucket/run")
GKE = ("--cluster=c", "--project=mine", "--zone=near", "--workload=w", "--image=i", "--dry-run")
LOCATION = ["--zone=near", "--project=mine"]


def _launch(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"experiments.launch.{module}", *arguments]
    environment = os.environ | {"PATH": ""}  # so that gcloud and xpk cannot be run by mistake
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


def _dry_run(module: str, *arguments: str) -> list[list[str]]:
    done = _launch(module, *arguments)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


@pytest.fixture
def env_file(tmp_path):
    file = tmp_path / "my.env"
    file.write_text("HF_TOKEN=secret\n")
    return str(file)


def test_setup_copies_the_commit_and_the_env_file_to_all_workers_and_installs(env_file):
    archive, copy, secrets, private, install = _dry_run(
        "tpu_vm", "setup", *TPU, f"--env_file={env_file}", "--packages=wandb"
    )
    assert archive[:2] == ["git", "archive"] and archive[-1] == "HEAD"
    scp = ["gcloud", "compute", "tpus", "tpu-vm", "scp"]
    file = archive[3].removeprefix("--output=")
    assert copy == [*scp, file, "slice:asyppo_jax.tar.gz", "--worker=all", *LOCATION]
    assert secrets == [*scp, env_file, "slice:asyppo_jax.env", "--worker=all", *LOCATION]
    assert private[-1] == "--command=chmod 600 asyppo_jax.env"
    assert install[4:7] == ["ssh", "slice", "--worker=all"]
    assert "uv pip install" in install[-1]
    assert install[-1].endswith("-e '.[tpu,gcs,parquet,tasks]' wandb")


def test_the_workers_install_what_the_image_installs():
    dockerfile = (ROOT / "experiments/launch/Dockerfile").read_text()
    assert f'-e ".[{EXTRAS}]"' in dockerfile


def test_train_starts_one_command_on_all_workers_with_the_flags_after_the_dashes():
    (command,) = _dry_run(
        "tpu_vm", "train", *TPU, *JOB, "--", "--config.prompt.template=a {problem}"
    )
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "slice", "--worker=all", *LOCATION]
    assert command[:-1] == ssh
    job = (
        ".venv/bin/python -u -m experiments.train --distributed --config=configs/tiny_test.py "
        "--workdir=gs://bucket/run '--config.prompt.template=a {problem}'"
    )
    assert job in command[-1]


def test_log_reads_one_worker_and_stop_reaches_all():
    (log,) = _dry_run("tpu_vm", "log", *TPU, "--worker=3")
    (stop,) = _dry_run("tpu_vm", "stop", *TPU)
    assert log[6] == "--worker=3" and log[-1] == "--command=tail -n 100 -f asyppo_jax/run.log"
    assert stop[6] == "--worker=all" and stop[-1].startswith("--command=kill ")


def test_a_job_on_gke_is_one_call_of_xpk(env_file):
    flags = (*GKE, "--tpu_type=v5litepod-4", f"--env_file={env_file}", *JOB)
    (command,) = _dry_run("gke", *flags, "--", "--config.seed=1")
    assert command[:3] == ["xpk", "workload", "create"]
    assert {"--workload=w", "--cluster=c", *LOCATION, f"--env-file={env_file}"} < set(command)
    assert {"--tpu-type=v5litepod-4", "--num-slices=1", "--docker-image=i"} < set(command)
    assert {"--max-restarts=10", "--restart-on-user-code-failure"} < set(command)
    assert command[-1] == (
        "--command=python -u -m experiments.train --distributed "
        "--config=configs/tiny_test.py --workdir=gs://bucket/run --config.seed=1"
    )


def test_the_environment_file_of_the_workers_names_the_data(tmp_path):
    file = tmp_path / "my.env"
    file.write_text("# the bucket\nASYPPO_DATA='gs://bucket/data'\n")
    flags = (PAPER, JOB[1], f"--env_file={file}")
    copy, private, start = _dry_run("tpu_vm", "train", *TPU, *flags, "--accelerator_type=v5p-32")
    assert copy[5:7] == [str(file), "slice:asyppo_jax.env"]
    assert private[-1] == "--command=chmod 600 asyppo_jax.env"
    assert "experiments.train --distributed" in start[-1]
    assert len(_dry_run("gke", *GKE, "--tpu_type=v5p-32", *flags)) == 1
    file.write_text("ASYPPO_DATA\n")
    wrong = _launch("tpu_vm", "train", *TPU, *flags)
    assert wrong.stderr == f"error: {file}, line 1: give NAME=value\n"


def test_this_machines_data_directory_is_not_that_of_the_workers(monkeypatch):
    monkeypatch.setenv("ASYPPO_DATA", "gs://bucket/data")
    refused = _launch("tpu_vm", "train", *TPU, PAPER, JOB[1])
    assert "config.train_data.path is 'data/deepmath_5k.jsonl'" in refused.stderr


NOWHERE = "--config=configs/qwen3_5b.py"
PAPER = "--config=configs/qwen3_14b_grpo.py"
WRONG = [
    (("tpu_vm", *TPU), "choose setup, train, log or stop"),
    (("tpu_vm", "train", *TPU), "train needs --config"),
    (("tpu_vm", "setup", *TPU, "--env_file=no.env"), "--env_file is 'no.env', which is not a file"),
    (("tpu_vm", "setup", *TPU, "--", "--config.seed=1"), "setup takes no --config.seed=1"),
    (("tpu_vm", "log", "--name=x", "--nmae=x"), "Unknown command line flag 'nmae'"),
    (("tpu_vm", "log", "--name=x"), "--project, --zone are missing; --help lists the flags"),
    # What experiments.train would say on the workers.
    (("tpu_vm", "train", *TPU, NOWHERE, JOB[1]), "qwen3_5b.py of --config does not exist; did you"),
    (("tpu_vm", "train", *TPU, *JOB, "--", "--config.sed=1"), "did you mean config.seed?"),
    (("tpu_vm", "train", *TPU, *JOB, "--", "--config.seed=x"), "config.seed takes a whole number"),
    (("tpu_vm", "train", *TPU, *JOB, "--", "--join_timeot=1"), "experiments.train --help lists"),
    (("tpu_vm", "train", *TPU, *JOB, "--", "config.seed=1"), "'config.seed=1' is not a flag"),
    (("gke", *GKE, "--tpu_type=v5p-8", NOWHERE, JOB[1]), "qwen3_5b.py of --config does not exist"),
    (("gke", *GKE, "--tpu_type=v5p-8", *JOB, "--", "--config.algorithm.gamma=2"), "in [0, 1]"),
    # What the workers could not do.
    (("tpu_vm", "train", *TPU, JOB[0], "--workdir=runs/x"), "give one that all workers share"),
    (("tpu_vm", "train", *TPU, *JOB, "--", "--workdir=runs/x"), "give one that all workers share"),
    (("tpu_vm", "train", *TPU, f"--config={ROOT}/{JOB[0][9:]}", JOB[1]), "the path from its top"),
    (("gke", *GKE, "--tpu_type=v5p-16", *JOB), "does not fit v5p-16: config.sampling.num_prompts"),
    (("gke", *GKE, "--tpu_type=v5p-33", *JOB), "'v5p-33' is no accelerator type; v5p has v5p-8"),
    (("gke", *GKE, "--tpu_type=v6p-32", *JOB), "'v6p-32' is no accelerator type that is known"),
    (("tpu_vm", "train", *TPU, *JOB, "--accelerator_type=v5p-16"), "does not fit v5p-16: config."),
    (("tpu_vm", "train", *TPU, *JOB, "--accelerator_type=v6p-32"), "'v6p-32' is no accelerator"),
    # What only this machine has.
    (
        ("tpu_vm", "train", *TPU, PAPER, JOB[1]),
        "config.train_data.path is 'data/deepmath_5k.jsonl'",
    ),
    (
        ("gke", *GKE, "--tpu_type=v5p-32", PAPER, JOB[1]),
        "gs://BUCKET/data from ASYPPO_DATA in the",
    ),
    *[
        (("tpu_vm", "train", *TPU, *JOB, "--", flag), sentence)
        for flag, sentence in (
            ("--config.actor.path=./model", "actor.path is './model', which does not exist here"),
            (
                f"--config.actor.path={Path(__file__).parents[3]}",
                "is on this machine and not on the",
            ),
            (
                f"--config.critic.path={Path(sys.prefix)}",
                "is on this machine and not on the workers",
            ),
            (
                "--config.value.warm_start=runs/mini",
                "config.value.warm_start is 'runs/mini', which",
            ),
            ("--config.reward.function=my:f", "names the module 'my', which is not found here"),
            ("--config.algorithm.loss=my:f", "names the module 'my', which is not found here"),
            ("--config.train_data.path=my:f", "at the top of this repository, commit it and run"),
        )
    ],
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_a_wrong_call_gives_a_one_line_error_and_no_command(arguments, sentence):
    done = _launch(*arguments)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and sentence in line


@pytest.mark.parametrize("flag", ["--config.seed=1", "--config.sed=1", "--join_timeout=100"])
def test_a_forgotten_separator_gives_a_one_line_error_with_it(flag):
    for launcher in (("tpu_vm", "train", *TPU), ("gke", *GKE, "--tpu_type=v5p-8")):
        done = _launch(*launcher, *JOB, flag)
        assert done.returncode == 1 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert "settings for the run stand behind a lone --" in line and line.endswith(f"-- {flag}")


def test_a_config_that_differs_from_the_last_commit_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.py"
    file.write_text("seed = 0\n")
    check_committed("mine.py")  # no git checkout, so nothing is known
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    with pytest.raises(ConfigError, match=r"mine\.py differs from the last commit"):
        check_committed("mine.py")
    subprocess.run([*git, "add", "mine.py"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "mine"], check=True)
    check_committed("mine.py")
    file.write_text("seed = 1\n")
    with pytest.raises(ConfigError, match="commit it and run setup again"):
        check_committed("mine.py")


def test_a_module_must_be_in_the_commit_that_the_workers_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_reward_at_top.py").write_text(
        "def f(problem, completion, answer): return 1.0\n"
    )
    config = replace(make_config(0), reward=RewardConfig(function="math, my_reward_at_top:f"))
    config = replace(config, actor=replace(config.actor, path="gs://bucket/model"))
    data = replace(config.train_data, source="hub", path="a/b")
    config = replace(config, train_data=data, eval_data=data)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    check_reachable(config, committed=False)
    with pytest.raises(ConfigError, match="'my_reward_at_top', which differs from the last commit"):
        check_reachable(config, committed=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "mine"], check=True)
    check_reachable(config, committed=True)
    elsewhere = tmp_path / "below"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ConfigError, match=f"is in {tmp_path}, which the workers do not have"):
        check_reachable(config, committed=True)


def test_the_mesh_is_checked_for_the_chips_of_a_known_slice():
    config = make_config(0)  # four prompts
    for tpu_type in ("v5litepod-4", "v6e-4", "v5p-8", "v4-8"):
        check_mesh(config, tpu_type)
    for tpu_type, chips in (("v5litepod-8", 8), ("v6e-16", 16), ("v5p-16", 8)):
        with pytest.raises(
            ConfigError, match=f"fit {tpu_type}: .*multiple of the data axis, {chips}"
        ):
            check_mesh(config, tpu_type)


def test_the_launcher_stops_at_the_first_command_that_fails(tmp_path):
    touch = [sys.executable, "-c", f"open({str(tmp_path / 'file')!r}, 'w')"]
    with pytest.raises(SystemExit, match="3"):
        run([[sys.executable, "-c", "raise SystemExit(3)"], touch], dry_run=False)
    with pytest.raises(ConfigError, match="no_such_program is not installed"):
        run([["no_such_program"], touch], dry_run=False)
    assert not (tmp_path / "file").exists()
    run([touch], dry_run=False)
    assert (tmp_path / "file").exists()


def test_every_flag_of_the_workers_command_is_a_flag_of_experiments_train():
    flags = shlex.split(training("python", "c.py", "gs://b/r", []))[4:]
    help_text = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--helpfull"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    for flag in flags:
        name = flag.split("=")[0].removeprefix("--")
        assert f"--{name}:" in help_text or f"--[no]{name}:" in help_text


def _on_worker(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HOME": str(home)}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_worker_runs_one_background_job_that_can_be_stopped(tmp_path):
    python = tmp_path / "asyppo_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "$TOKEN: $@"\nexec sleep 300\n')
    python.chmod(0o755)
    (tmp_path / "asyppo_jax.env").write_text("TOKEN=secret\n")
    start = train_command("c.py", "gs://bucket/run", ["--config.prompt.template=a b"])
    try:
        assert _on_worker(start, tmp_path).returncode == 0
        again = _on_worker(start, tmp_path)
        assert again.returncode == 1 and "a job is running here" in again.stderr
        pid = (tmp_path / "asyppo_jax" / "run.pid").read_text().strip()
        log = tmp_path / "asyppo_jax" / "run.log"
        _wait_until(lambda: log.read_text().endswith("\n"))
    finally:
        stopped = _on_worker(stop_command(), tmp_path)
    assert stopped.returncode == 0
    flags = "--config=c.py --workdir=gs://bucket/run --config.prompt.template=a b"
    assert log.read_text() == f"secret: -u -m experiments.train --distributed {flags}\n"
    _wait_until(lambda: _on_worker(f"ps -o stat= -p {pid}", tmp_path).stdout.strip() in ("", "Z"))


def _wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
