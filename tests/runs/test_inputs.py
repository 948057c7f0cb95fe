"""A run whose problems or models have changed is not continued; the sentence says what changed."""

import dataclasses
import json

import pytest

from asyppo_jax.config import Config, DataConfig, NetworkConfig
from asyppo_jax.runs.checkpoint import CheckpointError
from asyppo_jax.runs.inputs import find_change, keep_inputs, read_inputs
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.tasks.records import Record


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md"):
        (directory / name).write_text(name)
    return directory


def make_run(model, count=3, source="jsonl", **last):
    records = [Record(f"{i}+1", str(i + 1), {"level": i}) for i in range(count)]
    records[-1] = dataclasses.replace(records[-1], **last)
    data = dataclasses.replace(DataConfig(path="data/problems.jsonl"), source=source)
    config = Config(actor=NetworkConfig(path=str(model)), train_data=data, eval_data=data)
    prompts = [Prompt((1,), record) for record in records]
    held_out = [Prompt((1,), Record("1+1", "2"))]
    return config, prompts, held_out


def change_between(before, now):
    return find_change(json.loads(json.dumps(read_inputs(*before))), read_inputs(*now), now[0])


def test_the_same_inputs_are_the_same(model):
    assert change_between(make_run(model), make_run(model)) == ""


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"count": 2}, "2 of them instead of 3"),
        ({"answer": "7"}, "their content"),
        ({"problem": "?"}, "their content"),
        ({"columns": {"level": 9}}, "their content"),
    ],
)
def test_changed_problems_are_noticed(model, changes, how):
    change = change_between(make_run(model), make_run(model, **changes))
    path = "data/problems.jsonl"
    assert change == f"the training problems of {path} have changed since the run began ({how})"


def test_columns_of_a_function_may_be_objects_without_a_stable_text(model):
    runs = [make_run(model, source="function", columns={"score": object()}) for _ in range(2)]
    assert change_between(*runs) == ""


@pytest.mark.parametrize(
    ("file", "content", "how"),
    [
        ("model.safetensors", "model.safetensorz", "model.safetensors has other content"),
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("generation_config.json", "{}", "generation_config.json is new"),
        ("README.md", "changed", ""),
    ],
)
def test_a_changed_model_is_noticed(model, file, content, how):
    before = read_inputs(*make_run(model))
    (model / file).unlink(missing_ok=True)
    if content is not None:
        (model / file).write_text(content)
    now = make_run(model)
    change = find_change(before, read_inputs(*now), now[0])
    expected = f"the actor's model {model} has changed since the run began: {how}"
    assert change == (expected if how else "")


def test_only_a_run_that_has_trained_refuses_and_says_how_to_go_on(model, tmp_path):
    workdir = tmp_path / "run"
    keep_inputs(str(workdir), *make_run(model))
    keep_inputs(str(workdir), *make_run(model, count=2))  # nothing was trained
    assert json.loads((workdir / "problems.json").read_text()) == {"training": 2, "held_out": 1}
    (workdir / "metrics.jsonl").write_text('{"step": 1}\n')
    keep_inputs(str(workdir), *make_run(model, count=2))
    with pytest.raises(CheckpointError, match=r"put the old ones back.* or remove .*inputs.json"):
        keep_inputs(str(workdir), *make_run(model))
    (workdir / "inputs.json").unlink()  # as for a run of an earlier version
    keep_inputs(str(workdir), *make_run(model))
    assert json.loads((workdir / "inputs.json").read_text())["train_data"]["problems"] == 3


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"train_data": 1, "eval_data": 2}'])
def test_a_damaged_file_is_named(model, tmp_path, content):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"inputs.json is damaged; remove it"):
        keep_inputs(str(tmp_path), *make_run(model))
