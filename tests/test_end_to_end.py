"""One command, five steps: what it leaves behind, and going on after SIGKILL equal to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from asyppo_jax.runs.metrics import read_metrics

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One compile cache for all runs: the test is about what they compute, not about compiling."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }


def _command(workdir: Path, *flags: str) -> list[str]:
    program = [sys.executable, "-m", "experiments.train", "--config=configs/tiny_test.py"]
    return [*program, f"--workdir={workdir}", *flags]


@pytest.fixture(scope="module")
def uninterrupted(environment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    done = subprocess.run(
        _command(workdir), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def _state(workdir: Path, step: int):
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore())
        restored = manager.restore(step, args=args)
    return restored["state"], restored["data"]


def _without_times(rows):
    timed = ("time/", "rollout/tokens_per_s")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


def test_a_run_leaves_metrics_summary_plots_and_checkpoints(uninterrupted):
    workdir, output = uninterrupted
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert "actor/loss" not in rows[1] and "actor/loss" in rows[2]  # one step of warm-up
    assert all(value is not None for row in rows for value in row.values())  # none is NaN
    assert rows[2]["rollout/log_prob_gap"] < 1e-4
    summary = json.loads((workdir / "summary.json").read_text())
    assert {"accuracy_before", "accuracy_after", "steps", "seconds", "seed"} <= summary.keys()
    assert summary["steps"] == 5
    assert (workdir / "plots.png").stat().st_size > 10_000
    assert list((workdir / "tensorboard").iterdir())
    for text in ("minibatch (one gradient)", "held-out accuracy", "plots", "next"):
        assert text in output


def test_a_killed_run_started_again_ends_equal_to_the_last_bit(
    uninterrupted, environment, tmp_path
):
    whole, _ = uninterrupted
    workdir = tmp_path / "killed"
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            _command(workdir), cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        metrics = workdir / "metrics.jsonl"
        deadline = time.monotonic() + 600
        while not (metrics.exists() and '"step": 3' in metrics.read_text()):
            assert first.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    done = subprocess.run(
        _command(workdir), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    (left, left_data), (right, right_data) = _state(whole, 5), _state(workdir, 5)
    assert left_data == right_data
    left_leaves, right_leaves = _leaves(left), _leaves(right)
    assert left_leaves.keys() == right_leaves.keys() and len(left_leaves) > 50
    for name, leaf in left_leaves.items():
        np.testing.assert_array_equal(leaf, right_leaves[name], err_msg=name)
    rows = [_without_times(read_metrics(w / "metrics.jsonl")) for w in (whole, workdir)]
    assert rows[0] == rows[1]


def _leaves(tree):
    import jax

    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_a_finished_run_started_again_says_so_and_changes_nothing(uninterrupted, environment):
    workdir, _ = uninterrupted
    before = (workdir / "metrics.jsonl").read_bytes()
    done = subprocess.run(
        _command(workdir), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "held-out accuracy" in done.stdout
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--config.algorithm.num_critics=3"], "which 3 critics cannot share evenly"),
        (["--config.algorithm.advantage_mask_fraction=1.0"], r"must be in [0, 1)"),
        (["--config.actor.path=nowhere/at/all"], "does not exist"),
        (["--config.algorithm.gama=1"], "gama"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_a_non_zero_exit(
    flags, sentence, environment, tmp_path
):
    done = subprocess.run(
        _command(tmp_path / "run", *flags),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
