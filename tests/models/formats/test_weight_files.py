"""Weight files: those of the index, floats only, and a sentence for what is missing or damaged."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats.weight_files import read_tensors, weight_files

ONE = {"a": np.ones((2, 3), np.float32)}


def write_index(directory, weight_map) -> None:
    text = json.dumps({"weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(text)


def read_all(directory):
    return {name: read() for name, _, read in read_tensors(directory)}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16])
def test_floats_are_read(tmp_path, dtype):
    save_file({"a": np.ones((2, 3), dtype)}, tmp_path / "model.safetensors")
    assert read_all(tmp_path)["a"].dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("int8", "I8"),
        ("uint8", "U8"),
        ("bool", "BOOL"),
        ("int64", "I64"),
        (ml_dtypes.float8_e4m3fn, "F8_E4M3"),
        (ml_dtypes.float8_e5m2, "F8_E5M2"),
    ],
)
def test_other_dtypes_are_refused_with_tensor_and_dtype(tmp_path, dtype, name):
    header = {"a": {"dtype": name, "shape": [2], "data_offsets": [0, 2 * np.dtype(dtype).itemsize]}}
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + np.ones(2, dtype).tobytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=f"tensor a has the dtype {name}; only floats of 16 bits"):
        read_all(tmp_path)


def test_the_index_says_which_files_belong_to_the_model(tmp_path):
    for name in ("x.safetensors", "y.safetensors"):
        save_file(ONE, tmp_path / name)
    write_index(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"})
    assert [file.name for file in weight_files(tmp_path)] == ["x.safetensors", "y.safetensors"]
    save_file(ONE, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"file adapter_model\.safetensors, which .* does not"):
        weight_files(tmp_path)
    write_index(tmp_path, {"a": "x.safetensors", "b": "z.safetensors"})
    with pytest.raises(ModelError, match=r"no file z\.safetensors, which .*index\.json names"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"weight_map": []}', '{"weight_map": {"a": ["x"]}}'],
)
def test_a_damaged_index_is_named(tmp_path, text):
    save_file(ONE, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"index\.json is damaged"):
        weight_files(tmp_path)


def test_an_index_that_leaves_the_directory_is_refused(tmp_path):
    write_index(tmp_path, {"a": "../x.safetensors"})
    with pytest.raises(ModelError, match=r"names '\.\./x\.safetensors', which is no file"):
        weight_files(tmp_path)


def test_missing_files_are_named(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no \.safetensors file \(but pytorch_model\.bin\); conv"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"model\.safetensors is a link to a file that is missing"):
        weight_files(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"GGUF" * 10])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated or not safetensors"):
        read_all(tmp_path)
