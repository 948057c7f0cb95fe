import contextlib
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from asyppo_jax.config import ConfigError, LogConfig
from asyppo_jax.runs.metrics import (
    MetricsError,
    MetricWriter,
    NonFiniteError,
    describe_missing_steps,
    read_metrics,
    require_finite,
    write_summary,
)
from tests.runs.test_tensorboard import read_events

JSON_ONLY = LogConfig(tensorboard=False)


def _write(workdir, steps, *, start_step=None, log=JSON_ONLY):
    writer = MetricWriter(workdir, log, start_step=start_step)
    for step in steps:
        writer.write(step, {"actor/loss": 0.1 * step})
    writer.close()
    return workdir / "metrics.jsonl"


def test_metrics_are_read_back_exactly(tmp_path):
    path = _write(tmp_path / "new" / "run", [1, 2, 3])
    assert read_metrics(path) == [{"step": s, "actor/loss": 0.1 * s} for s in (1, 2, 3)]


def test_a_line_is_on_disk_before_the_writer_is_closed(tmp_path):
    writer = MetricWriter(tmp_path, JSON_ONLY, start_step=None)
    writer.write(1, {"actor/loss": 0.5})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "actor/loss": 0.5}]
    writer.close()


def test_non_finite_values_are_null_in_valid_json(tmp_path):
    writer = MetricWriter(tmp_path, JSON_ONLY, start_step=None)
    writer.write(1, {"a/nan": math.nan, "a/inf": math.inf, "a/neg": -math.inf, "a/one": 1})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 1, "a/nan": None, "a/inf": None, "a/neg": None, "a/one": 1.0}


def test_the_file_of_a_resumed_run_equals_that_of_an_uninterrupted_run(tmp_path):
    uninterrupted = _write(tmp_path / "uninterrupted", range(1, 9))
    resumed = _write(tmp_path / "resumed", range(1, 7))  # killed after step 6, checkpoint at 4
    _write(tmp_path / "resumed", range(5, 9), start_step=4)
    assert resumed.read_bytes() == uninterrupted.read_bytes()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_cut_off_last_line_is_dropped_on_resume_and_skipped_on_reading(tmp_path, cut):
    complete = _write(tmp_path / "complete", range(1, 6))
    cut_off = _write(tmp_path / "cut_off", range(1, 6))
    cut_off.write_bytes(cut_off.read_bytes()[:-cut])
    assert [row["step"] for row in read_metrics(cut_off)][:4] == [1, 2, 3, 4]
    _write(tmp_path / "cut_off", [5], start_step=4)
    assert cut_off.read_bytes() == complete.read_bytes()


def test_a_last_line_that_only_lacks_its_newline_is_kept(tmp_path):
    path = _write(tmp_path, range(1, 4))
    path.write_bytes(path.read_bytes()[:-1])
    _write(tmp_path, [4], start_step=3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]


def test_a_run_can_resume_from_the_file_of_a_killed_writer(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from asyppo_jax.config import LogConfig\n"
        "from asyppo_jax.runs.metrics import MetricWriter\n"
        "writer = MetricWriter(sys.argv[1], LogConfig(tensorboard=False), start_step=None)\n"
        "for step in (1, 2, 3): writer.write(step, {'actor/loss': 0.1 * step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    path = _write(tmp_path, [3, 4], start_step=2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]


def test_a_run_that_starts_again_does_not_keep_the_earlier_lines(tmp_path):
    path = _write(tmp_path, [0, 1])
    _write(tmp_path, [0, 1, 2])
    assert [row["step"] for row in read_metrics(path)] == [0, 1, 2]


def test_a_run_that_resumes_before_its_first_evaluation_keeps_the_line_of_step_0(tmp_path):
    path = _write(tmp_path, [0])  # stopped in step 1: the checkpoint lacks the evaluation
    _write(tmp_path, [1, 2], start_step=0)
    assert [row["step"] for row in read_metrics(path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        (range(9), ""),
        (range(8), "has no line of step 8: these"),
        (range(5), "has no line of steps 5 to 8: these"),
        ((1, 2, 4, 5), "has no line of steps 0, 3, 6 to 8: these"),
        ((), "has no line of steps 0 to 8: these"),
    ],
)
def test_a_resume_says_which_steps_the_file_lacks_and_goes_on(tmp_path, capsys, lines, missing):
    path = _write(tmp_path, lines)  # whole last lines are gone, the checkpoint is of step 8
    assert capsys.readouterr().out == ""
    _write(tmp_path, [9], start_step=8)
    printed = capsys.readouterr().out
    assert (missing in printed and printed.count("\n") == 1) if missing else printed == ""
    assert [row["step"] for row in read_metrics(path)] == [*lines, 9]
    assert describe_missing_steps(path, 8) == printed.removesuffix("\n")


@pytest.mark.parametrize("broken", ['{"step": 2, "a', '{"a/b": 1.0}', "[1]", '{"step": 2.5}'])
def test_a_broken_line_is_an_error_and_the_file_stays_unchanged(tmp_path, broken):
    path = tmp_path / "metrics.jsonl"
    content = f'{{"step": 1}}\n{broken}\n{{"step": 3}}\n'
    path.write_text(content)
    with pytest.raises(MetricsError, match=r"line 2, .*remove that line"):
        MetricWriter(tmp_path, JSON_ONLY, start_step=3)
    assert path.read_text() == content


def test_the_error_for_a_missing_file_says_which_path_to_give(tmp_path):
    with pytest.raises(MetricsError, match=r"metrics\.jsonl does not exist; give the workdir"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_host_that_is_not_the_writer_touches_no_file(tmp_path):
    writer = MetricWriter(tmp_path / "run", LogConfig(), start_step=None, is_writer=False)
    writer.write(1, {"actor/loss": 0.5})
    writer.close()
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_finite_scalars(tmp_path):
    writer = MetricWriter(tmp_path, LogConfig(tensorboard=True), start_step=None)
    writer.write(1, {"actor/loss": 0.5, "critic/loss": math.nan})
    writer.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = read_events(file)
    scalars = {(v.tag, event.step): v.simple_value for event in events for v in event.summary.value}
    assert scalars == {("actor/loss", 1): 0.5}


def test_wandb_without_the_package_is_refused_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # what Python does for a missing module
    log = LogConfig(wandb_project="asyppo")
    for is_writer in (True, False):
        with pytest.raises(ConfigError, match="pip install wandb"):
            MetricWriter(tmp_path / "run", log, start_step=None, is_writer=is_writer)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_continues_its_wandb_run(tmp_path, monkeypatch):
    started, logged = [], []
    run = types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), finish=lambda: None
    )
    package = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", package)
    log = LogConfig(tensorboard=False, wandb_project="asyppo")
    _write(tmp_path, [1], log=log)
    _write(tmp_path, [2], start_step=1, log=log)
    _write(tmp_path, [1], log=log)
    first, resumed, again = (options["id"] for options in started)
    assert first == resumed != again
    assert [step for step, _ in logged] == [1, 2, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", ["actor/loss", "critic/loss", "actor/grad_norm", "critic/grad_norm"]
)
def test_a_non_finite_loss_or_gradient_gives_a_clear_error(name, value):
    metrics = {"rollout/reward_mean": 0.5, "actor/loss": 0.1, name: value}
    with pytest.raises(NonFiniteError) as caught:
        require_finite(12, metrics)
    message = str(caught.value)
    assert message.startswith(f"step 12: {name} is {value}; ")
    assert f"config.{name.split('/')[0]}_optimizer.learning_rate" in message
    assert "earlier checkpoints are intact" in message and "\n" not in message


def test_other_metrics_may_be_non_finite():
    require_finite(1, {"critic/explained_variance": math.nan, "actor/loss": 1.0})


def test_a_summary_is_replaced_atomically(tmp_path):
    path = write_summary(tmp_path, {"accuracy_after": 0.5, "seed": 1, "nested": {"x": math.nan}})
    assert json.loads(path.read_text()) == {
        "accuracy_after": 0.5,
        "seed": 1,
        "nested": {"x": None},
    }
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_summary(tmp_path, {"accuracy_after": object()})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_tensorboard_gets_texts_as_they_are_written(tmp_path):
    with contextlib.closing(MetricWriter(tmp_path, LogConfig(), start_step=None)) as writer:
        writer.write_text(3, "samples", "a < b\n  c")
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"<pre>a &lt; b\n  c</pre>" in file.read_bytes()
    with contextlib.closing(MetricWriter(tmp_path / "x", JSON_ONLY, start_step=None)) as writer:
        writer.write_text(3, "samples", "nothing happens")


def test_a_loss_of_a_users_own_is_the_first_suspect():
    with pytest.raises(NonFiniteError, match=r"intact; check the loss mine:loss, try a lower"):
        require_finite(1, {"actor/loss": float("nan")}, "mine:loss")
    with pytest.raises(NonFiniteError, match=r"intact; try a lower config\.critic_"):
        require_finite(1, {"critic/loss": float("nan")}, "mine:loss")
