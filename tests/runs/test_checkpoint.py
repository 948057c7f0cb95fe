"""Checkpoints: equal to the bit, the latest and the best kept."""

import logging
import math
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from asyppo_jax.algorithm.state import create_train_state, state_shardings
from asyppo_jax.config import CheckpointConfig, MeshConfig
from asyppo_jax.runs import checkpoint
from asyppo_jax.runs.checksums import write_checksums
from asyppo_jax.runtime.sharding import make_mesh, placed
from tests.reshard_program import restore
from tests.simulated import environment
from tests.tiny import assert_trees_equal, make_config, make_networks


@pytest.fixture(scope="module")
def state_and_shardings():
    config, networks = make_config(), make_networks()
    shardings = state_shardings(config, networks, make_mesh(MeshConfig()))
    create = jax.jit(lambda: create_train_state(config, networks), out_shardings=shardings)
    return create(), shardings


def test_a_restored_state_is_the_saved_one_to_the_last_bit(tmp_path, state_and_shardings):
    state, shardings = state_and_shardings
    state = state.replace(step=np.int32(7))
    with checkpoint.make_manager(str(tmp_path), CheckpointConfig()) as manager:
        checkpoint.save(manager, state, {"next_index": 3}, None)
    with checkpoint.make_manager(str(tmp_path), CheckpointConfig()) as manager:
        like = placed(state, shardings)
        restored, data = checkpoint.restore(manager, like)
    assert data == {"next_index": 3}
    assert_trees_equal(state, restored)
    write_checksums(epath.Path(tmp_path / "checkpoints"), [7])
    largest = max((tmp_path / "checkpoints").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    message = r"checkpoints/7 is damaged: its file state/.* has other bytes .*; remove that folder"
    with (
        checkpoint.make_manager(str(tmp_path), CheckpointConfig()) as manager,
        pytest.raises(checkpoint.CheckpointError, match=message),
    ):
        checkpoint.restore(manager, like)
    (tmp_path / "checksums" / "7.0.json").unlink()
    largest.write_bytes(b"")  # of a run without checksums
    with (
        checkpoint.make_manager(str(tmp_path), CheckpointConfig()) as manager,
        pytest.raises(checkpoint.CheckpointError, match=r"checkpoints/7 cannot be read: .*remove"),
    ):
        checkpoint.restore(manager, like)


def test_a_step_without_accuracy_is_saved_without_a_warning(
    tmp_path, state_and_shardings, caplog, monkeypatch
):
    state, _ = state_and_shardings
    with checkpoint.make_manager(str(tmp_path), CheckpointConfig()) as manager:
        save = manager.save

        def save_and_warn(*args, **kwargs):
            logging.getLogger("absl").warning("the disk is nearly full")
            return save(*args, **kwargs)

        monkeypatch.setattr(manager, "save", save_and_warn)
        checkpoint.save(manager, state, {}, None)
        logging.getLogger("absl").warning("after the save")
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == ["the disk is nearly full", "after the save"]


def test_a_state_saved_on_eight_devices_is_the_same_bits_on_four_times_two_and_on_one(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "tests.reshard_program", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=environment(8),
        check=True,
        timeout=300,
    )
    restored, data = restore(str(tmp_path), MeshConfig())
    with np.load(tmp_path / "state.npz") as saved:
        assert_trees_equal(list(saved.values()), jax.tree.leaves(restored))
    assert data == {"next_index": 3} and jax.device_count() == 1


@pytest.mark.parametrize("without", [None, math.nan])  # NaN: no answer had a score
def test_the_latest_and_the_best_are_kept(tmp_path, state_and_shardings, without):
    state, _ = state_and_shardings
    accuracies = {1: 0.2, 2: 0.9, 3: without, 4: 0.4, 5: 0.5}
    with checkpoint.make_manager(str(tmp_path), CheckpointConfig(keep=1)) as manager:
        for step, accuracy in accuracies.items():
            checkpoint.save(manager, state.replace(step=np.int32(step)), {}, accuracy)
            manager.wait_until_finished()
    with checkpoint.make_manager(str(tmp_path), CheckpointConfig(keep=1)) as manager:
        assert sorted(manager.all_steps()) == [2, 5]


def test_the_best_outlives_a_restart(tmp_path, state_and_shardings):
    state, _ = state_and_shardings
    for accuracies in ({1: 0.9, 2: 0.1}, {3: None, 4: 0.3}):
        with checkpoint.make_manager(str(tmp_path), CheckpointConfig(keep=1)) as manager:
            for step, accuracy in accuracies.items():
                checkpoint.save(manager, state.replace(step=np.int32(step)), {}, accuracy)
                manager.wait_until_finished()
    with checkpoint.make_manager(str(tmp_path), CheckpointConfig(keep=1)) as manager:
        assert sorted(manager.all_steps()) == [1, 4] and manager.latest_step() == 4


@pytest.mark.parametrize("content", ["", '{"acc', "[]", "{}", '{"accuracy": "high"}'])
def test_a_torn_accuracy_of_a_kept_step_is_named(tmp_path, content):
    for step, text in ((2, '{"accuracy": 0.5}'), (4, content)):
        (tmp_path / "checkpoints" / str(step) / "metrics").mkdir(parents=True)
        (tmp_path / "checkpoints" / str(step) / "metrics" / "metrics").write_text(text)
    message = r"checkpoints/4 is damaged: its file metrics/metrics cannot be read; remove that fold"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.make_manager(str(tmp_path), CheckpointConfig())


def test_an_empty_directory_holds_no_checkpoint(tmp_path, state_and_shardings):
    state, shardings = state_and_shardings
    with (
        checkpoint.make_manager(str(tmp_path), CheckpointConfig()) as manager,
        pytest.raises(checkpoint.CheckpointError, match="has no checkpoint; check --workdir"),
    ):
        checkpoint.restore(manager, placed(state, shardings))


def test_settings_that_change_the_result_must_stay_and_others_may_change(tmp_path):
    settings = {"num_steps": 5, "algorithm": {"gamma": 1.0}, "log": {"samples_every": 2}}
    checkpoint.check_same_run(str(tmp_path), {})  # nobody's directory yet
    checkpoint.write_settings(str(tmp_path), settings)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    checkpoint.check_same_run(str(tmp_path), settings)
    checkpoint.check_same_run(str(tmp_path), settings | {"num_steps": 9})
    checkpoint.check_same_run(str(tmp_path), settings | {"log": {"samples_every": 1}})
    with pytest.raises(checkpoint.CheckpointError, match=r"config\.algorithm\.gamma = 1\.0"):
        checkpoint.check_same_run(str(tmp_path), settings | {"algorithm": {"gamma": 0.9}})


def test_a_directory_in_which_nothing_was_trained_takes_other_settings(tmp_path):
    checkpoint.write_settings(str(tmp_path), {"seed": 0})
    other = {"seed": 1}
    checkpoint.check_same_run(str(tmp_path), other)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')  # evaluated, not trained
    (tmp_path / "checkpoints").mkdir()
    checkpoint.check_same_run(str(tmp_path), other)
    assert not checkpoint.has_trained(str(tmp_path))
    (tmp_path / "checkpoints" / "1").mkdir()
    with pytest.raises(checkpoint.CheckpointError, match=r"config\.seed = 0, this one has 1"):
        checkpoint.check_same_run(str(tmp_path), other)


def test_after_an_interruption_the_last_checkpoint_is_named(tmp_path):
    kept = checkpoint.describe_kept
    assert kept(str(tmp_path)).startswith("stopped before the first checkpoint; the same")
    for step in (2, 4):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    assert "the last checkpoint is of step 4, and the same command" in kept(str(tmp_path))
    assert kept(str(tmp_path), signal.SIGTERM).startswith("stopped by SIGTERM; the last checkpoint")


@pytest.mark.parametrize("content", ["", '{"seed": 0, "act', "[]", "3"])
def test_torn_settings_are_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    message = r"config\.json (is not JSON|has no settings).*; give another run, or copy the file"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.read_settings(str(tmp_path))


def test_settings_are_written_only_when_new(tmp_path):
    checkpoint.write_settings(str(tmp_path), {"seed": 0})
    first = (tmp_path / "config.json").stat().st_ino
    checkpoint.write_settings(str(tmp_path), {"seed": 0})
    assert (tmp_path / "config.json").stat().st_ino == first
    checkpoint.write_settings(str(tmp_path), {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
