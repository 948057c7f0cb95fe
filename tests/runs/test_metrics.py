import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from asyppo_jax.config import AlgorithmConfig, Config, ConfigError, LogConfig
from asyppo_jax.runs.metrics import (
    MetricsError,
    MetricWriter,
    NonFiniteError,
    Progress,
    describe_sizes,
    format_samples,
    read_metrics,
    require_finite,
    write_summary,
)

JSON_ONLY = LogConfig(tensorboard=False)


def _write(workdir, steps, *, start_step=0, log=JSON_ONLY):
    writer = MetricWriter(workdir, log, start_step=start_step)
    for step in steps:
        writer.write(step, {"actor/loss": 0.1 * step})
    writer.close()
    return workdir / "metrics.jsonl"


def test_what_is_written_is_read_back_exactly(tmp_path):
    path = _write(tmp_path / "new" / "run", [1, 2, 3])
    assert read_metrics(path) == [{"step": s, "actor/loss": 0.1 * s} for s in (1, 2, 3)]


def test_a_line_is_on_disk_before_the_writer_is_closed(tmp_path):
    writer = MetricWriter(tmp_path, JSON_ONLY, start_step=0)
    writer.write(1, {"actor/loss": 0.5})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "actor/loss": 0.5}]
    writer.close()


def test_non_finite_values_are_null_in_valid_json(tmp_path):
    writer = MetricWriter(tmp_path, JSON_ONLY, start_step=0)
    writer.write(1, {"a/nan": math.nan, "a/inf": math.inf, "a/neg": -math.inf, "a/one": 1})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 1, "a/nan": None, "a/inf": None, "a/neg": None, "a/one": 1.0}


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path):
    whole = _write(tmp_path / "whole", range(1, 9))
    resumed = _write(tmp_path / "resumed", range(1, 7))  # killed after step 6, checkpoint at 4
    _write(tmp_path / "resumed", range(5, 9), start_step=4)
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_healed_on_resume_and_ignored_on_reading(tmp_path, cut):
    whole = _write(tmp_path / "whole", range(1, 6))
    torn = _write(tmp_path / "torn", range(1, 6))
    torn.write_bytes(torn.read_bytes()[:-cut])
    assert [row["step"] for row in read_metrics(torn)][:4] == [1, 2, 3, 4]
    _write(tmp_path / "torn", [5], start_step=4)
    assert torn.read_bytes() == whole.read_bytes()


def test_a_last_line_that_only_lacks_its_newline_is_kept(tmp_path):
    path = _write(tmp_path, range(1, 4))
    path.write_bytes(path.read_bytes()[:-1])
    _write(tmp_path, [4], start_step=3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]


def test_a_writer_that_was_killed_leaves_a_file_to_go_on_from(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from asyppo_jax.config import LogConfig\n"
        "from asyppo_jax.runs.metrics import MetricWriter\n"
        "writer = MetricWriter(sys.argv[1], LogConfig(tensorboard=False), start_step=0)\n"
        "for step in (1, 2, 3): writer.write(step, {'actor/loss': 0.1 * step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    path = _write(tmp_path, [3, 4], start_step=2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]


def test_a_run_from_the_start_does_not_repeat_the_evaluation_before_it(tmp_path):
    path = _write(tmp_path, [0, 1])
    _write(tmp_path, [0, 1, 2])
    assert [row["step"] for row in read_metrics(path)] == [0, 1, 2]


@pytest.mark.parametrize("broken", ['{"step": 2, "a', '{"a/b": 1.0}', "[1]", '{"step": 2.5}'])
def test_a_broken_line_is_named_and_the_file_is_left_alone(tmp_path, broken):
    path = tmp_path / "metrics.jsonl"
    content = f'{{"step": 1}}\n{broken}\n{{"step": 3}}\n'
    path.write_text(content)
    with pytest.raises(MetricsError, match=r"line 2, .*remove that line"):
        MetricWriter(tmp_path, JSON_ONLY, start_step=3)
    assert path.read_text() == content


def test_reading_a_missing_file_says_what_to_give(tmp_path):
    with pytest.raises(MetricsError, match=r"metrics\.jsonl does not exist; give the workdir"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_host_that_is_not_the_writer_touches_no_file(tmp_path):
    writer = MetricWriter(tmp_path / "run", LogConfig(), start_step=0, is_writer=False)
    writer.write(1, {"actor/loss": 0.5})
    writer.close()
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_finite_scalars(tmp_path):
    writer = MetricWriter(tmp_path, LogConfig(tensorboard=True), start_step=0)
    writer.write(1, {"actor/loss": 0.5, "critic/loss": math.nan})
    writer.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, scalars = file.read_bytes(), {}
    while data:  # length (8 bytes), its checksum (4), an event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        scalars |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
        data = data[16 + length :]
    assert scalars == {("actor/loss", 1): 0.5}


def test_wandb_without_the_package_is_refused_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # what Python does for a missing module
    log = LogConfig(wandb_project="asyppo")
    for is_writer in (True, False):
        with pytest.raises(ConfigError, match="pip install wandb"):
            MetricWriter(tmp_path / "run", log, start_step=0, is_writer=is_writer)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_goes_on_in_its_wandb_run(tmp_path, monkeypatch):
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
def test_a_non_finite_loss_or_gradient_stops_in_words(name, value):
    metrics = {"rollout/reward_mean": 0.5, "actor/loss": 0.1, name: value}
    with pytest.raises(NonFiniteError) as caught:
        require_finite(12, metrics)
    message = str(caught.value)
    assert message.startswith(f"step 12: {name} is {value}; ")
    assert f"config.{name.split('/')[0]}_optimizer.learning_rate" in message
    assert "latest checkpoint is intact" in message and "\n" not in message


def test_other_metrics_may_be_non_finite():
    require_finite(1, {"critic/explained_variance": math.nan, "actor/loss": 1.0})


def test_phase_times_add_up_within_a_step_and_are_handed_over_once():
    progress = Progress(2, stream=io.StringIO())
    for _ in range(2):
        with progress.phase("sample"):
            time.sleep(0.01)
    with progress.phase("update"):
        pass
    times = progress.take_times()
    assert list(times) == ["time/sample_s", "time/update_s"]
    assert times["time/sample_s"] >= 0.02 and times["time/update_s"] >= 0
    assert progress.take_times() == {}


def test_a_phase_that_raises_is_still_measured():
    progress = Progress(1, stream=io.StringIO())
    with pytest.raises(RuntimeError, match="no device"), progress.phase("sample"):
        raise RuntimeError("no device")
    assert "time/sample_s" in progress.take_times()


def test_a_log_file_gets_one_plain_line_a_step():
    stream = io.StringIO()
    progress = Progress(100, start_step=10, stream=stream)
    for step, accuracy in ((11, {"evaluate/accuracy": 0.25}), (12, {})):
        with progress.phase("sample"):
            pass
        metrics = {
            "rollout/reward_mean": 0.5,
            "actor/entropy": 0.75,
            "rollout/tokens_per_s": 1234.0,
        }
        progress.finish_step(step, {**metrics, **accuracy, **progress.take_times()})
    progress.print("hello")
    progress.close()
    *steps, last = stream.getvalue().splitlines()
    for line, step in zip(steps, (11, 12), strict=True):  # the accuracy is the last one measured
        assert line.startswith(f"step  {step}/100  reward 0.500  accuracy 0.250  entropy 0.750  ")
    assert all("1,234 tokens/s" in line and line.endswith(" left") for line in steps)
    assert last == "hello" and "\r" not in stream.getvalue()


def test_a_terminal_gets_a_bar_with_the_phase_and_the_numbers():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress(20, start_step=4, stream=stream)
    with progress.phase("score"):
        pass
    progress.finish_step(5, {"rollout/reward_mean": 0.5})
    progress.close()
    frames = stream.getvalue().split("\r")
    assert any(frame.startswith("score") and " 4/20 " in frame for frame in frames)
    assert any(" 5/20 " in frame and "reward 0.500" in frame for frame in frames)


def test_a_host_that_is_not_the_writer_shows_nothing():
    stream = io.StringIO()
    progress = Progress(2, is_writer=False, stream=stream)
    with progress.phase("sample"):
        pass
    progress.finish_step(1, {"rollout/reward_mean": 0.5})
    progress.print("hello")
    progress.close()
    assert stream.getvalue() == "" and "time/sample_s" in progress.take_times()


def _with_critics(num_critics):
    return dataclasses.replace(Config(), algorithm=AlgorithmConfig(num_critics=num_critics))


def _table(text):
    rows = [line.rsplit(maxsplit=3) for line in text.splitlines()]
    return {row[0].strip(): row[1:] for row in rows if len(row) == 4}


def test_sizes_of_the_default_run_by_hand():
    text = describe_sizes(_with_critics(2))
    assert "32 prompts x 32 responses = 1,024 sequences" in text
    assert "prompt 512 + completion 8,192 = 8,704 tokens\n" in text
    table = _table(text)
    assert table["epoch (responses, one pass)"] == ["1,024", "1,024", "512"]
    assert table["minibatch (one gradient)"] == ["128", "128", "64"]
    assert table["microbatch (one forward)"] == ["16", "16", "8"]
    assert table["minibatches an epoch"] == ["8", "8", "8"]
    assert table["optimiser updates a step"] == ["32", "8", "8"]
    assert "the first 10 steps update the critics only" in text


def test_sizes_tell_of_shared_prompts():
    config = _with_critics(2)
    batching = dataclasses.replace(config.batching, rows_per_prompt=8)
    text = describe_sizes(dataclasses.replace(config, batching=batching))
    assert "8,704 tokens; 8 completions share a pass over their prompt\n" in text


def test_sizes_without_critics_name_none():
    text = describe_sizes(_with_critics(0))
    assert "no critics: advantages are normalised within each group" in text
    assert "critics only" not in text
    assert "optimiser updates a step" in text and text.splitlines()[-3].split()[-1] == "32"


def test_columns_of_the_sizes_end_in_one_line():
    lines = describe_sizes(_with_critics(8)).splitlines()
    header = next(i for i, line in enumerate(lines) if line.endswith("each critic"))
    assert len({len(line) for line in lines[header : header + 7]}) == 1


def test_a_summary_is_replaced_whole_or_not_at_all(tmp_path):
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


def test_samples_show_prompt_completion_and_reward_or_invalid():
    text = format_samples(7, ["1+1?", "2+2?"], ["two\nlines", "4"], [0.0, 1.0], [False, True])
    assert text.splitlines() == [
        "-- step 7, sample 1 of 2: reward invalid --",
        "prompt:",
        "    1+1?",
        "completion:",
        "    two",
        "    lines",
        "-- step 7, sample 2 of 2: reward 1.00 --",
        "prompt:",
        "    2+2?",
        "completion:",
        "    4",
    ]


def test_a_long_sample_loses_its_middle_and_says_how_much():
    completion = "a" * 60 + "b" * 1000 + "c" * 60
    text = format_samples(1, ["p"], [completion], [1.0], [True], max_characters=121)
    assert "a" * 60 in text and "c" * 60 in text
    assert "[... 999 characters ...]" in text and text.count("b") == 1


def test_samples_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="zip"):
        format_samples(1, ["p"], ["x", "y"], [1.0], [True])
