"""The lines that a run prints at its end."""

import json

from asyppo_jax.config import Config, RewardConfig
from asyppo_jax.runs.summary import describe_result, summarize_run


def _summary(workdir, *held_out, function="math"):
    rows = [{"step": 2 * i, "evaluate/accuracy": x} for i, x in enumerate(held_out)]
    lines = [json.dumps(row | {"time/elapsed_s": 12.3}) for row in rows]
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return summarize_run(Config(reward=RewardConfig(function)), str(workdir))


def test_the_results_before_and_after_and_all_files_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = _summary(tmp_path, 0.25, 0.75, 0.5)
    assert (summary["accuracy_best"], summary["best_step"]) == (0.75, 2)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert describe_result(summary, str(tmp_path)).splitlines() == [
        "held-out accuracy 25.0% -> 50.0% in 4 steps, 12 s (seed 0)",
        "plots    plots.png, accuracy.png",
        f"metrics  {tmp_path}/metrics.jsonl, summary.json",
    ]
    (tmp_path / "tensorboard").mkdir()
    assert describe_result(summary, str(tmp_path)).endswith("summary.json, tensorboard/")


def test_a_result_that_is_not_known_is_no_error(tmp_path):
    summary = _summary(tmp_path, 0.25, None, function="mine:reward")
    line = describe_result(summary, str(tmp_path)).splitlines()[0]
    assert line.startswith("held-out mean reward 25.0% -> no reward in 2 steps")


def test_a_plot_in_a_bucket_keeps_its_address():
    summary = {"accuracy_before": 0.0, "accuracy_after": 1.0, "measure": "accuracy", "steps": 1}
    summary |= {"seconds": 1, "seed": 0, "plots": ["gs://bucket/run/plots.png"]}
    assert "plots    gs://bucket/run/plots.png\n" in describe_result(summary, "runs/x")
