"""A changed file has another fingerprint, also where only samples of it are read."""

import pytest

from asyppo_jax.runtime.fingerprints import MODEL_SUFFIXES, combined, fingerprint, fingerprints


def write(path, content):
    path.write_bytes(content)
    return fingerprint(path)


@pytest.mark.parametrize("size", [1, 2**16, 5 * 2**20, 5 * 2**20 + 1, 40 * 2**20])
def test_a_change_at_either_end_and_another_size_are_noticed(tmp_path, size):
    content = bytearray(size)
    before = write(tmp_path / "file", content)
    assert write(tmp_path / "same", content) == before
    for at in (0, size - 1):
        content[at] ^= 1
        assert write(tmp_path / "file", content) != before
        content[at] ^= 1
    assert write(tmp_path / "file", content + b"\0") != before


def test_a_change_of_two_percent_of_a_large_file_is_noticed_anywhere(tmp_path):
    size = 64 * 2**20
    before = write(tmp_path / "file", bytes(size))
    changed = size // 50  # the distance of two samples is 1/64
    for start in range(0, size - changed, size // 5):
        content = bytearray(size)
        content[start : start + changed] = b"x" * changed
        assert write(tmp_path / "file", content) != before


def test_the_files_of_a_model_are_those_that_are_loaded(tmp_path):
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text(name)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "more.json").write_text("more")
    assert list(fingerprints(tmp_path, MODEL_SUFFIXES)) == ["config.json", "model.safetensors"]
    everything = fingerprints(tmp_path)
    assert list(everything) == ["README.md", "below/more.json", "config.json", "model.safetensors"]
    assert combined(everything) == combined(dict(reversed(everything.items())))
    assert combined(everything) != combined(everything | {"README.md": ""})
