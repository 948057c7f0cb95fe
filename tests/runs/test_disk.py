"""A workdir that cannot be used and a full disk end in one sentence; other errors stay visible."""

import errno
import os

import pytest

from asyppo_jax.config import ConfigError
from asyppo_jax.runs.checkpoint import CheckpointError
from asyppo_jax.runs.disk import DiskError, check_workdir, raise_if_disk_error


def test_new_and_existing_directories_pass(tmp_path):
    for name in ("", "new", "new/in/new"):
        check_workdir(str(tmp_path / name))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("below", ["", "/run", "/run/deeper"])
def test_a_file_in_the_place_of_the_workdir_is_named(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"cannot be made, because .*/file is a file; give a dir"):
        check_workdir(f"{tmp_path}/file{below}")


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(DiskError, match=r"cannot be written.*; make it writable, or give another"):
        check_workdir(str(tmp_path / "run"))


def test_a_run_without_its_checkpoints_does_not_start_again_silently(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 0}\n')
    check_workdir(str(tmp_path))
    metrics.write_text('{"step": 0}\n{"step": 7}\n')
    with pytest.raises(CheckpointError, match=r"has the metrics of 7 steps but no folder checkp"):
        check_workdir(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()  # killed before the first checkpoint
    check_workdir(str(tmp_path))
    metrics.unlink()
    check_workdir(str(tmp_path))
    save_step(tmp_path, 4)
    with pytest.raises(CheckpointError, match=r"a checkpoint of step 4 but no metrics\.jsonl"):
        check_workdir(str(tmp_path))


def save_step(workdir, step):
    (workdir / "checkpoints" / str(step)).mkdir(parents=True)
    (workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").write_text("{}")


def raised(error, workdir):
    try:
        raise_if_disk_error(error, str(workdir))
    except DiskError as disk_error:
        return str(disk_error)
    return ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_named_wherever_it_was_noticed(tmp_path, number):
    reason = os.strerror(number)
    error = OSError(number, reason)
    text = raised(error, tmp_path)
    assert text.startswith(f"a file cannot be written: {reason}; make room") and "\n" not in text
    named = OSError(number, reason, f"{tmp_path}/metrics.jsonl")
    assert raised(named, tmp_path).startswith(f"{tmp_path}/metrics.jsonl cannot be written: ")
    of_orbax = ValueError(f'Error writing "x" in {tmp_path}/checkpoints/1: {reason} [code]')
    assert raised(of_orbax, tmp_path).startswith(f"a checkpoint in {tmp_path} cannot be written")
    later = RuntimeError("the thread failed")
    later.__cause__ = of_orbax
    assert reason in raised(later, tmp_path)
    during = RuntimeError("another error while it was handled")
    during.__context__ = error
    assert reason in raised(during, tmp_path)


def test_the_sentence_says_from_where_the_run_continues(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "the same command starts from the beginning" in raised(error, tmp_path)
    save_step(tmp_path, 3)
    assert "the last checkpoint is of step 3" in raised(error, tmp_path)


def test_other_errors_keep_their_traceback(tmp_path):
    for error in (
        ValueError("No space left on device"),  # of another place
        FileNotFoundError(errno.ENOENT, "No such file", f"{tmp_path}/x"),
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/x"),
        ConfigError(f"{tmp_path}: No space left on device"),
    ):
        assert raised(error, tmp_path) == ""
    refused = PermissionError(errno.EACCES, "Permission denied", f"{tmp_path}/x")
    assert raised(refused, tmp_path).startswith(f"{tmp_path}/x cannot be written: Permission den")
