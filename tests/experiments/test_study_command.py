"""The command of studies: real runs in worker processes, killed, resumed and compared."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.study.results import LEFT, Status
from experiments.study.runner import Remaining, Worker, duration, locked, take_next
from experiments.study.study import Study, StudyRun, runs_of
from tests.tiny import save_model_directory

ROOT = Path(__file__).parents[2]
STUDY = """\
from experiments.study.study import Only, Study

LOGS = {"evaluation.every": 0, "checkpoint.every": 1, "algorithm.critic_warmup_steps": 0}
METHODS = {
    "GRPO": {"algorithm.num_critics": 0, "algorithm.advantages": "grpo"},
    "too fast": {
        "algorithm.num_critics": 0,
        "algorithm.advantages": "grpo",
        "actor_optimizer.learning_rate": 1e3,
        "actor_optimizer.weight_decay": 1e3,
    },
    "no model": {"actor.path": "nowhere"},
}


def get_study():
    return Study(
        name="s",
        base="tiny_test",
        tasks={"sums": {"actor.path": "@MODEL@", "num_steps": 2, **LOGS}},
        actors={"small": {}},
        methods={name: METHODS[name] for name in @METHODS@},
        seeds=(0, 1),
        only={"no model": Only(seeds=(1,))} if "no model" in @METHODS@ else {},
    )
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_directory(tmp_path_factory.mktemp("model"))


def write_study(directory, model, *methods):
    text = STUDY.replace("@MODEL@", model).replace("@METHODS@", repr(methods))
    (directory / "study.py").write_text(text)


def command(directory, *flags):
    return [
        *(sys.executable, "-m", "experiments.study", f"--study={directory}/study.py"),
        *(f"--workdir={directory}/work", *flags),
    ]


def run(directory, *flags):
    return subprocess.run(command(directory, *flags), cwd=ROOT, capture_output=True, text=True)


def states(directory):
    files = sorted((directory / "work/runs").glob("*/*/*/*/status.json"))
    return {
        str(f.parent.relative_to(f.parents[2])): json.loads(f.read_text())["state"] for f in files
    }


def numbers(directory):
    """The lines of the results file but for times."""
    with (directory / "work/results.csv").open() as lines:
        return [row for row in csv.DictReader(lines) if not row["metric"].startswith("time/")]


@pytest.mark.slow
def test_a_killed_study_goes_on_and_equals_one_that_was_not(model, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for directory in (whole, killed):
        directory.mkdir()
        write_study(directory, model, "GRPO", "too fast", "no model")
    done = run(whole, "--jobs=1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: the run sums / small / no model / seed 1 failed: model directory 'nowhere' does "
        "not exist; give a directory or a hub name"
    )
    assert states(whole) == {
        "grpo/seed_0": "finished",
        "grpo/seed_1": "finished",
        "no_model/seed_1": "failed",
        "too_fast/seed_0": "diverged",
        "too_fast/seed_1": "diverged",
    }
    assert "[5/5]" in done.stdout and "too fast / seed 1: diverged in" in done.stdout
    # Killed after the first run; its workers end with it.
    with subprocess.Popen(command(killed, "--jobs=2"), cwd=ROOT) as process:
        _wait_until(lambda: (killed / "work/runs").exists() and states(killed))
        workers = _children(process.pid)
        process.kill()
    assert len(workers) == 2
    _wait_until(lambda: not any(map(_is_alive, workers)))
    listed = run(killed, "--list").stdout.splitlines()
    assert len(listed) == 6 and "5 runs: " in listed[-1] and " left" in listed[-1]
    assert not [line for line in listed if "no model" in line and "left" not in line]
    write_study(killed, model, "GRPO", "too fast")
    resumed = run(killed, "--jobs=2")
    assert resumed.returncode == 0, resumed.stderr
    assert numbers(killed) == numbers(whole)
    before = (killed / "work/results.csv").read_bytes()
    again = run(killed)
    assert "4 runs: 2 finished, 2 diverged; " in again.stdout
    assert (killed / "work/results.csv").read_bytes() == before
    _check_report(killed / "work")


def _check_report(workdir):
    report = [sys.executable, "-m", "experiments.report", f"--study={workdir}"]
    for name in ("a", "b"):
        done = subprocess.run([*report, f"--output={workdir}/{name}"], cwd=ROOT, check=True)
        assert done.returncode == 0
    files = sorted((workdir / "a").iterdir())
    assert [file.name for file in files] == ["curves.png", "differences.png", "tables.md"]
    assert all(file.read_bytes() == (workdir / "b" / file.name).read_bytes() for file in files)


def test_ctrl_c_ends_it_with_a_sentence(model, tmp_path):
    write_study(tmp_path, model, "GRPO")
    with subprocess.Popen(
        command(tmp_path, "--jobs=1"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        _wait_until(lambda: _children(process.pid))
        workers = _children(process.pid)
        refused = run(tmp_path)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert refused.stderr.startswith("error: another program is doing the runs of")
    assert process.returncode == 130
    assert (
        error.strip() == "stopped; the same command goes on from the last checkpoints of its runs"
    )
    assert not any(map(_is_alive, workers))


def _wait_until(condition, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _children(pid):
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_a_wrong_flag_is_one_sentence(tmp_path):
    def error(*flags):
        done = subprocess.run(
            [sys.executable, "-m", *flags], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 1
        return done.stderr.strip()

    assert error("experiments.study") == "error: --study is missing"
    assert error("experiments.study", "--study=quickstart") == "error: --workdir is missing"
    assert error("experiments.study", "x") == "error: 'x' is not a flag"
    assert error("experiments.report").startswith("error: --study is missing; give the workdir")
    assert "results.csv does not exist" in error("experiments.report", f"--study={tmp_path}")


def _runs(*methods, seeds=(0, 1)) -> list[StudyRun]:
    changes = {method: {} for method in methods}
    return runs_of(Study("s", "tiny_test", {"t": {}}, {"a": {}}, changes, seeds))


def test_a_worker_takes_runs_whose_programs_it_has_traced():
    left = _runs("x", "y", "z", seeds=(0, 1, 2))
    workers: list[Worker] = [Worker(None), Worker(None)]  # type: ignore[arg-type]
    taken = []
    for index in (0, 1, 0, 1, 0, 1, 1, 0, 0):
        run = take_next(left, workers[index], workers)
        workers[index].traced.add(run.setting)
        taken.append((index, run.method, run.seed))
    assert taken == [
        *((0, "x", 0), (1, "y", 0), (0, "z", 0)),
        *((1, "y", 1), (0, "x", 1), (1, "z", 1)),  # nothing else of seed 1 was left
        *((1, "y", 2), (0, "x", 2), (0, "z", 2)),
    ]
    assert left == []


def test_the_time_that_is_left_is_that_of_runs_alike():
    runs = _runs("x", "y", "z", seeds=(0,))
    remaining = Remaining(jobs=2)
    assert remaining.seconds(runs) is None
    remaining.add(runs[0], 10.0)
    remaining.add(runs[0], 20.0)
    remaining.add(runs[1], 45.0)
    assert remaining.seconds(runs) == (15 + 45 + 30) / 2
    assert [duration(s) for s in (3.4, 100, 7200)] == ["3 s", "2 min", "2.0 h"]
    assert Status("left") == LEFT


def test_a_directory_is_locked_while_the_block_lasts(tmp_path):
    from asyppo_jax.config import ConfigError

    with locked(tmp_path), pytest.raises(ConfigError, match="another program"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
