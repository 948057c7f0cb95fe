"""Data files: what cannot be read is named, with what the file is instead."""

import gzip
import importlib.util

import pytest

from asyppo_jax.config import ConfigError, DataConfig
from asyppo_jax.tasks.data_files import DataError
from asyppo_jax.tasks.records import load_records


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PAR1\x15\x04\n", 'is a parquet file; set source to "parquet"'),
        (gzip.compress(b"{}", mtime=0), "is compressed by gzip; decompress it"),
        (b"PK\x03\x04\x14\n", "is a zip archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"<!DOCTYPE html>\n", "is a web page or XML; download the file itself"),
        (b'[\n  {"problem": "p", "answer": 1}\n]\n', "is one JSON list; write its objects one per"),
        (b'[{"problem": "p", "answer": 1}]', "is one JSON list; write its objects one per line"),
        (b'{\n  "problem": "p"\n}\n', "is one JSON document over several lines; write one object"),
        (b"problem,answer\n1+1,2\n", "looks like CSV; convert it to one JSON object per line"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, sentence):
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_records(DataConfig(path=str(path)))
    assert str(caught.value).startswith(f"{path} ") and "\n" not in str(caught.value)


def test_an_address_is_not_a_file():
    with pytest.raises(DataError, match=r"https://x\.org/d\.jsonl is an address, not a file; down"):
        load_records(DataConfig(path="https://x.org/d.jsonl"))


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_bucket_without_its_package_is_refused():
    with pytest.raises(ConfigError, match=r"gs://bucket/d\.jsonl needs the package gcsfs"):
        load_records(DataConfig(path="gs://bucket/d.jsonl"))
    with pytest.raises(DataError, match=r"data file s3://bucket/d.* cannot be found"):
        load_records(DataConfig(path="s3://bucket/d.jsonl"))


def test_damaged_pages_of_a_parquet_file_are_named(tmp_path):
    pytest.importorskip("pyarrow", reason="parquet files need the package pyarrow")
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "data.parquet"
    rows = [{"problem": f"p{i}" * 30, "answer": str(i)} for i in range(200)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"(is not a parquet file|cannot be read).*write it again"):
        load_records(DataConfig(source="parquet", path=str(path)))
