"""A damaged file of a checkpoint is found; test_checkpoint.py reads the sentence."""

import errno
import os

import pytest
from etils import epath

from asyppo_jax.runs import checksums
from asyppo_jax.runs.checksums import ChecksumWriter, find_damage


@pytest.fixture
def directory(tmp_path):
    directory = epath.Path(tmp_path) / "checkpoints"
    for step in (2, 4):
        (directory / str(step) / "state").mkdir(parents=True)
        (directory / str(step) / "state" / "weights").write_bytes(bytes(range(256)))
        (directory / str(step) / "metadata").write_text("{}")
    writer = ChecksumWriter(directory)
    writer.add(2)
    writer.add(4)
    writer.start()
    writer.finish()
    return directory


@pytest.mark.parametrize("cut", [0, 100, 256])
def test_a_cut_file_and_a_flipped_bit_are_found(directory, cut):
    weights = directory / "4" / "state" / "weights"
    content = bytearray(weights.read_bytes())
    content[7] ^= 16 * (cut == 256)
    weights.write_bytes(content[:cut])
    assert find_damage(directory, 4) == "its file state/weights has other bytes than were written"
    assert find_damage(directory, 2) == ""


def test_a_missing_file_is_found_and_a_torn_list_of_checksums(directory):
    (directory / "4" / "metadata").unlink()
    assert find_damage(directory, 4) == "its file metadata is missing"
    (directory.parent / "checksums" / "2.0.json").write_text('{"meta')
    assert "cannot be read" in find_damage(directory, 2)


def test_checksums_of_deleted_checkpoints_are_removed_and_older_ones_need_none(directory):
    (directory / "4").rmtree()
    (directory / "6").mkdir()
    writer = ChecksumWriter(directory)
    writer.add(4)
    writer.start()
    writer.finish()
    kept = sorted(path.name for path in (directory.parent / "checksums").iterdir())
    assert kept == ["2.0.json"] and find_damage(directory, 6) == ""


def test_a_full_disk_is_raised_by_the_thread_that_waits(directory, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checksums, "write_whole", full)
    writer = ChecksumWriter(directory)
    writer.add(4)
    writer.start()
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    writer.finish()  # only once
