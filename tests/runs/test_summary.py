"""The lines that a run prints at its end."""

import json
import re
from pathlib import Path

from asyppo_jax.config import Config, RewardConfig
from asyppo_jax.runs.summary import describe_result, summarize_run

HIGH = {"evaluate/accuracy_high": 0.875}


def _summary(workdir, *held_out, function="math"):
    rows = [
        {"step": 20 * i, "evaluate/accuracy": x, "evaluate/accuracy_low": x, **HIGH}
        for i, x in enumerate(held_out)
    ]
    lines = [json.dumps(row | {"time/elapsed_s": 12.3}) for row in rows]
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return summarize_run(Config(reward=RewardConfig(function)), str(workdir))


def test_the_results_before_and_after_and_all_files_are_named(tmp_path):
    summary = _summary(tmp_path, 0.25, 0.75, 0.5)
    assert (summary["accuracy_best"], summary["best_step"]) == (0.75, 20)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert describe_result(summary, str(tmp_path)).splitlines() == [
        "held-out accuracy 25.0% -> 50.0% [50.0%, 87.5%] in 40 steps, 12 s (seed 0)",
        f"plots    {tmp_path}/plots.png, {tmp_path}/accuracy.png",
        f"metrics  {tmp_path}/metrics.jsonl, summary.json",
    ]
    (tmp_path / "tensorboard").mkdir()
    assert describe_result(summary, str(tmp_path)).endswith("summary.json, tensorboard/")


def test_a_result_that_is_not_known_is_no_error(tmp_path):
    summary = _summary(tmp_path, 0.25, None, function="mine:reward")
    line = describe_result(summary, str(tmp_path)).splitlines()[0]
    assert line.startswith("held-out mean reward 25.0% -> no reward in 20 steps")


def test_the_printed_paths_can_be_opened_from_where_the_user_is(tmp_path, monkeypatch):
    (tmp_path / "runs" / "x").mkdir(parents=True)
    summary = _summary(tmp_path / "runs" / "x", 0.25, 0.75)
    monkeypatch.chdir(tmp_path)
    for workdir in ("runs/x", "runs/x/", str(tmp_path / "runs" / "x")):
        printed = describe_result(summary, workdir)
        assert "//" not in printed
        assert all(Path(path).is_file() for path in re.findall(r"\S+\.(?:png|jsonl)\b", printed))
        assert f"plots    {workdir.rstrip('/')}/plots.png" in printed


def test_steps_that_updated_the_critics_only_are_said_to_be_no_training_of_the_actor(tmp_path):
    rows = [{"step": i, "evaluate/accuracy": 0.5, "time/elapsed_s": 1.0} for i in (0, 5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    text = describe_result(summarize_run(Config(), str(tmp_path)), str(tmp_path))
    assert "updated the critics only: the difference is sampling noise" in text
