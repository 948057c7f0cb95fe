"""Every bit of a run in which it differs from the expected one is counted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.torture.compare import lost_bits, row_bits, tree_bits
from tests.saved_run import write_run


def floats(*values):
    return np.array(values, np.float32)


def test_differing_bits_of_arrays_are_counted():
    tree = {"a": floats(1, -1), "key": np.array([0, 0], np.uint32), "step": np.int32(3)}
    assert tree_bits(tree, tree) == 0
    assert tree_bits(tree, tree | {"a": floats(1, 1)}) == 1  # the sign
    assert tree_bits(tree, tree | {"key": np.array([0, 1], np.uint32)}) == 1
    assert tree_bits(tree | {"a": floats(np.nan, 0)}, tree) > 2
    assert tree_bits(tree | {"a": floats(1)}, tree) == 64
    assert tree_bits({}, tree) == 64 + 64 + 32


def test_differing_and_missing_metrics_are_counted():
    rows = {0: {"a": 1.0, "b": None}, 1: {"a": -1.0}}
    assert row_bits(rows, rows) == 0
    assert row_bits(rows, {0: rows[0], 1: {"a": 1.0}}) == 1
    assert row_bits({0: rows[0]}, rows) == 64
    assert row_bits(rows, {0: rows[0]}) == 64
    assert row_bits({0: {"a": 1.0, "b": 0.0}, 1: rows[1]}, rows) > 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path, *_ = write_run(tmp_path_factory.mktemp("saved"))
    return Path(path)


def test_a_run_is_compared_with_the_same_step_of_another(saved, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    assert lost_bits(run, saved) == lost_bits(run, saved, 2) == 0
    metrics = run / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows[3]["evaluate/accuracy"] = -rows[3]["evaluate/accuracy"]
    rows[3]["time/step_s"] = 3.0
    metrics.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert lost_bits(run, saved) == 1 and lost_bits(run, saved, 2) == 0
    shutil.rmtree(run / "checkpoints" / "3")
    everything = lost_bits(run, saved)
    shutil.copytree(run / "checkpoints" / "2", run / "checkpoints" / "3")
    assert 1 < lost_bits(run, saved) < everything


def test_metrics_of_a_step_that_waits_for_its_evaluation_may_be_missing(saved, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    metrics = run / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
    assert lost_bits(run, saved, 3) == 64
    position = run / "checkpoints" / "3" / "data" / "metadata"
    position.write_text(json.dumps({"unevaluated": {"actor/loss": 0.1}}))
    assert lost_bits(run, saved, 3) == 0
    assert lost_bits(run, saved) == 64  # a finished run has been evaluated
    position.write_text(json.dumps({"index": 3}))
    assert lost_bits(run, saved) == 128
