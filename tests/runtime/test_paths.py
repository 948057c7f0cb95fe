"""Paths in a bucket, which is in memory and, like a real one, only replaces full objects."""

import importlib.util
import json
from pathlib import Path

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from asyppo_jax.config import ConfigError, DataConfig, LogConfig, PromptConfig
from asyppo_jax.models.formats.huggingface import load_config, load_params
from asyppo_jax.runs.checkpoint import (
    CheckpointError,
    check_same_run,
    write_settings,
)
from asyppo_jax.runs.metrics import MetricWriter, read_metrics, write_summary
from asyppo_jax.runs.plots import plot_run
from asyppo_jax.runtime.paths import (
    absolute,
    check_packages,
    in_bucket,
    local_directory,
    open_to_append,
    write_whole,
)
from asyppo_jax.tasks.prompts import make_prompts
from asyppo_jax.tasks.records import DataError, Record, load_records
from asyppo_jax.tasks.tokenizers import load_tokenizer
from tests.tiny import assert_trees_equal, save_model_directory

BUCKET = "gs://bucket"


class Bucket(MemoryFileSystem):
    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012 (the base class stores its files here)
    pseudo_dirs = [""]  # noqa: RUF012

    def _open(self, path, mode="rb", *args, **kwargs):
        assert mode in ("rb", "wb"), f"a bucket cannot open a file with {mode!r}"
        return super()._open(path, mode, *args, **kwargs)


@pytest.fixture(autouse=True)
def bucket():
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    Bucket.store.clear()
    epath.Path(BUCKET).mkdir(parents=True, exist_ok=True)


def test_in_bucket_distinguishes_buckets_from_directories(tmp_path):
    assert in_bucket(f"{BUCKET}/run") and in_bucket(epath.Path(BUCKET) / "run")
    assert not in_bucket(tmp_path) and not in_bucket("runs/tiny_test")
    assert str(absolute(f"{BUCKET}/run")) == f"{BUCKET}/run"
    assert str(absolute("run")) == f"{Path.cwd()}/run"


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_the_error_for_a_missing_bucket_package_names_it(tmp_path):
    check_packages(tmp_path)
    with pytest.raises(ConfigError, match=r"gs://bucket/run needs the package gcsfs .*pip install"):
        check_packages(f"{BUCKET}/run")


@pytest.mark.parametrize("location", ["local", "bucket"])
def test_a_file_is_replaced_atomically_and_appended_to(location, tmp_path):
    path = epath.Path(BUCKET if location == "bucket" else tmp_path) / "file"
    write_whole(path, b"one\n")
    write_whole(path, b"two\n")
    file = open_to_append(path)
    file.write(b"three\n")
    file.flush()
    assert path.read_bytes() == b"two\nthree\n"
    file.close()
    assert path.read_bytes() == b"two\nthree\n"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_metrics_summary_and_plots_are_written_to_a_bucket_and_resumed():
    log = LogConfig(tensorboard=False)
    for start, steps in ((None, (0, 1, 2)), (1, (2, 3))):
        writer = MetricWriter(f"{BUCKET}/run", log, start_step=start)
        for step in steps:
            writer.write(step, {"evaluate/accuracy": step / 4})
            last = read_metrics(f"{BUCKET}/run/metrics.jsonl")[-1]
            assert last == {"step": step, "evaluate/accuracy": step / 4}
        writer.close()
    assert [row["step"] for row in read_metrics(f"{BUCKET}/run/metrics.jsonl")] == [0, 1, 2, 3]
    summary = write_summary(f"{BUCKET}/run", {"steps": 3})
    assert json.loads(summary.read_text()) == {"steps": 3}
    plots = plot_run(f"{BUCKET}/run")
    assert [str(p) for p in plots] == [f"{BUCKET}/run/plots.png", f"{BUCKET}/run/accuracy.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in plots)


def test_a_different_run_in_the_same_bucket_is_refused():
    write_settings(f"{BUCKET}/run", {"seed": 3})
    (epath.Path(BUCKET) / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CheckpointError, match=r"gs://bucket/run holds a run with config\.seed = 3"):
        check_same_run(f"{BUCKET}/run", {"seed": 4})


def test_records_are_read_from_a_bucket(monkeypatch):
    monkeypatch.setattr("asyppo_jax.tasks.data_files.check_packages", lambda path: None)
    file = epath.Path(BUCKET) / "data.jsonl"
    file.write_text('{"problem": "1+1", "answer": "2"}\n')
    (record,) = load_records(DataConfig(path=str(file)))
    assert (record.problem, record.answer) == ("1+1", "2")
    with pytest.raises(DataError, match=r"gs://bucket/no\.jsonl does not exist"):
        load_records(DataConfig(path=f"{BUCKET}/no.jsonl"))


def test_a_model_directory_in_a_bucket_loads_like_a_local_one(tmp_path):
    local = save_model_directory(tmp_path)
    for file in tmp_path.iterdir():
        (epath.Path(BUCKET) / "model" / file.name).write_bytes(file.read_bytes())
    remote = f"{BUCKET}/model"
    config = load_config(remote)
    left, right = (load_params(path, config, "actor") for path in (local, remote))
    assert_trees_equal(left, right)
    prompt = PromptConfig(template="{problem}=")
    records = [Record("1+1", "2")]
    left, right = (make_prompts(records, load_tokenizer(path), prompt) for path in (local, remote))
    assert left == right
    assert local_directory(remote) == local_directory(remote)  # copied once
    assert str(local_directory(local)) == local
