"""Paths in a bucket. The bucket is in memory and takes, like the real one, whole objects only."""

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

HERE = "gs://bucket"


class Bucket(MemoryFileSystem):
    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012 (the base class keeps its files so)
    pseudo_dirs = [""]  # noqa: RUF012

    def _open(self, path, mode="rb", *args, **kwargs):
        assert mode in ("rb", "wb"), f"a bucket opens no file with {mode!r}"
        return super()._open(path, mode, *args, **kwargs)


@pytest.fixture(autouse=True)
def bucket():
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    Bucket.store.clear()
    epath.Path(HERE).mkdir(parents=True, exist_ok=True)


def test_a_bucket_is_told_from_a_directory(tmp_path):
    assert in_bucket(f"{HERE}/run") and in_bucket(epath.Path(HERE) / "run")
    assert not in_bucket(tmp_path) and not in_bucket("runs/tiny_test")
    assert str(absolute(f"{HERE}/run")) == f"{HERE}/run"
    assert str(absolute("run")) == f"{Path.cwd()}/run"


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_package_that_a_bucket_needs_is_named(tmp_path):
    check_packages(tmp_path)
    with pytest.raises(ConfigError, match=r"gs://bucket/run needs the package gcsfs .*pip install"):
        check_packages(f"{HERE}/run")


@pytest.mark.parametrize("place", ["local", "bucket"])
def test_a_file_is_replaced_whole_and_appended_to(place, tmp_path):
    path = epath.Path(HERE if place == "bucket" else tmp_path) / "file"
    write_whole(path, b"one\n")
    write_whole(path, b"two\n")
    file = open_to_append(path)
    file.write(b"three\n")
    file.flush()
    assert path.read_bytes() == b"two\nthree\n"
    file.close()
    assert path.read_bytes() == b"two\nthree\n"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_metrics_summary_and_plots_are_written_to_a_bucket_and_gone_on_with():
    log = LogConfig(tensorboard=False)
    for start, steps in ((0, (0, 1, 2)), (1, (2, 3))):
        writer = MetricWriter(f"{HERE}/run", log, start_step=start)
        for step in steps:
            writer.write(step, {"evaluate/accuracy": step / 4 + start})
            last = read_metrics(f"{HERE}/run/metrics.jsonl")[-1]
            assert last == {"step": step, "evaluate/accuracy": step / 4 + start}
        writer.close()
    assert [row["step"] for row in read_metrics(f"{HERE}/run/metrics.jsonl")] == [0, 1, 2, 3]
    summary = write_summary(f"{HERE}/run", {"steps": 3})
    assert json.loads(summary.read_text()) == {"steps": 3}
    plots = plot_run(f"{HERE}/run")
    assert [str(p) for p in plots] == [f"{HERE}/run/plots.png", f"{HERE}/run/accuracy.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in plots)


def test_a_run_in_a_bucket_is_told_from_another():
    write_settings(f"{HERE}/run", {"seed": 3})
    with pytest.raises(CheckpointError, match=r"gs://bucket/run holds a run with config\.seed = 3"):
        check_same_run(f"{HERE}/run", {"seed": 4})


def test_data_are_read_from_a_bucket():
    file = epath.Path(HERE) / "data.jsonl"
    file.write_text('{"problem": "1+1", "answer": "2"}\n')
    (record,) = load_records(DataConfig(path=str(file)))
    assert (record.problem, record.answer) == ("1+1", "2")
    with pytest.raises(DataError, match=r"gs://bucket/no\.jsonl does not exist"):
        load_records(DataConfig(path=f"{HERE}/no.jsonl"))


def test_a_model_directory_in_a_bucket_is_the_one_that_was_put_there(tmp_path):
    local = save_model_directory(tmp_path)
    for file in tmp_path.iterdir():
        (epath.Path(HERE) / "model" / file.name).write_bytes(file.read_bytes())
    there = f"{HERE}/model"
    config = load_config(there)
    left, right = (load_params(path, config, "actor") for path in (local, there))
    assert_trees_equal(left, right)
    prompt = PromptConfig(template="{problem}=")
    records = [Record("1+1", "2")]
    left, right = (make_prompts(records, load_tokenizer(path), prompt) for path in (local, there))
    assert left == right
    assert local_directory(there) == local_directory(there)  # copied once
    assert str(local_directory(local)) == local
