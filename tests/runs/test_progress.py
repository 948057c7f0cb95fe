"""Console output of a run: phases, sizes, samples."""

import dataclasses
import io
import time
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from asyppo_jax.config import AlgorithmConfig, Config, MeshConfig, ValueConfig
from asyppo_jax.runs.progress import Progress, describe_devices, describe_sizes, format_samples
from asyppo_jax.runtime.sharding import make_mesh


@dataclass(frozen=True)
class Chip:
    id: int
    device_kind: str = "TPU v5p"
    platform: str = "tpu"
    process_index: int = 0


class Stream(io.StringIO):
    def __init__(self, *, terminal):
        super().__init__()
        self._terminal = terminal

    def isatty(self):
        return self._terminal


def test_phase_times_are_summed_within_a_step_and_returned_once():
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


def test_a_log_file_gets_one_plain_line_per_step():
    stream = io.StringIO()
    progress = Progress(100, start_step=10, stream=stream)
    for step, accuracy in ((11, {"evaluate/accuracy": 0.25}), (12, {}), (100, {})):
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
    for line, step in zip(steps, (11, 12, 100), strict=True):  # the latest result
        assert line.startswith(f"step {step:>3}/100  reward 0.500  held-out 0.250  entropy 0.750  ")
    assert all("1,234 tokens/s" in line for line in steps)
    # The first step compiles, so nothing is known of the time left; after the last none is.
    assert [line.endswith(" left") for line in steps] == [False, True, False]
    assert last == "hello" and "\r" not in stream.getvalue()


def test_a_terminal_gets_a_bar_with_the_phase_and_the_numbers():
    stream = Stream(terminal=True)
    progress = Progress(20, start_step=4, stream=stream)
    with progress.phase("score"):
        pass
    progress.finish_step(5, {"rollout/reward_mean": 0.5})
    progress.close()
    frames = stream.getvalue().split("\r")
    assert any(frame.startswith("score") and " 4/20 " in frame for frame in frames)
    assert any(" 5/20 " in frame and "reward 0.500" in frame for frame in frames)


@pytest.mark.parametrize("terminal", [True, False])
def test_without_a_terminal_progress_is_standard_output(monkeypatch, terminal):
    out, err = Stream(terminal=terminal), Stream(terminal=terminal)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    progress = Progress(2)
    progress.finish_step(1, {"rollout/reward_mean": 0.5})
    progress.print("hello")
    progress.close()
    shown, silent = (err, out) if terminal else (out, err)
    assert "reward 0.500" in shown.getvalue() and "hello\n" in shown.getvalue()
    assert silent.getvalue() == ""


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
    estimator = "gae" if num_critics else "grpo"
    algorithm = AlgorithmConfig(advantages=estimator, num_critics=num_critics)
    return dataclasses.replace(Config(), algorithm=algorithm)


def _table(text):
    rows = [line.rsplit(maxsplit=3) for line in text.splitlines()]
    return {row[0].strip(): row[1:] for row in rows if len(row) == 4}


def test_sizes_of_the_default_run_by_hand():
    text = describe_sizes(_with_critics(2))
    assert text.startswith("method    AsyPPO (2 critics, masks 0% and 20%)\n")
    assert "32 prompts x 32 responses = 1,024 sequences" in text
    assert "prompt 512 + completion 8,192 = 8,704 tokens\n" in text
    table = _table(text)
    assert table["epoch (responses, one pass)"] == ["1,024", "1,024", "512"]
    assert table["minibatch (one gradient)"] == ["128", "128", "64"]
    assert table["microbatch (one forward)"] == ["16", "16", "8"]
    assert table["minibatches per epoch"] == ["8", "8", "8"]
    assert table["optimizer updates per step"] == ["32", "8", "8"]
    assert "the first 10 steps update the critics only" in text
    assert describe_sizes(_with_critics(2), 9) == text
    assert "critics only" not in describe_sizes(_with_critics(2), 10)


def test_critics_of_the_same_data_see_all_of_it_in_as_many_updates():
    config = _with_critics(2)
    algorithm = dataclasses.replace(config.algorithm, critic_data="all")
    table = _table(describe_sizes(dataclasses.replace(config, algorithm=algorithm)))
    assert table["epoch (responses, one pass)"] == ["1,024", "2,048", "1,024"]
    assert table["minibatch (one gradient)"] == ["128", "256", "128"]
    assert table["microbatch (one forward)"] == ["16", "16", "8"]
    assert table["optimizer updates per step"] == ["32", "8", "8"]


def test_devices_and_mesh_are_one_line():
    config = MeshConfig(data=1, model=1)
    line = describe_devices(make_mesh(config, jax.devices()[:1]), config)
    assert line == "devices   1 x cpu; mesh data=1, model=1"


def test_meshes_of_their_own_are_named():
    devices = np.array([Chip(i) for i in range(8)])
    config = MeshConfig(model=2, sampling_model=4, critic_model=1)
    line = describe_devices(Mesh(devices.reshape(4, 2), ("data", "model")), config)
    assert line == (
        "devices   8 x TPU v5p; mesh data=4, model=2; of sampling data=2, model=4; "
        "of the critics data=8, model=1"
    )


def test_sizes_mention_shared_prompts():
    config = _with_critics(2)
    batching = dataclasses.replace(config.batching, rows_per_prompt=8)
    text = describe_sizes(dataclasses.replace(config, batching=batching))
    assert "8,704 tokens; 8 completions share a pass over their prompt\n" in text


def test_sizes_without_critics_have_no_critic_column():
    text = describe_sizes(_with_critics(0))
    assert text.startswith("method    GRPO (no critics)\n")
    assert "critics only" not in text
    assert "optimizer updates per step" in text and text.splitlines()[-1].split()[-1] == "32"


def test_the_columns_of_the_sizes_are_aligned():
    lines = describe_sizes(_with_critics(8)).splitlines()
    header = next(i for i, line in enumerate(lines) if line.endswith("each critic"))
    assert len({len(line) for line in lines[header : header + 7]}) == 1


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


def test_the_middle_of_a_long_sample_is_cut_out_and_its_length_shown():
    completion = "a" * 60 + "b" * 1000 + "c" * 60
    text = format_samples(1, ["p"], [completion], [1.0], [True], max_characters=121)
    assert "a" * 60 in text and "c" * 60 in text
    assert "[... 999 characters ...]" in text and text.count("b") == 1


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        format_samples(1, ["p"], ["x", "y"], [1.0], [True])


def test_options_of_the_critics_are_named_below_the_method():
    plain, config = Config(), Config(value=ValueConfig(head_init="rollout"))
    assert not any(line.startswith("options") for line in describe_sizes(plain).splitlines())
    assert "options   head_init=rollout" in describe_sizes(config).splitlines()


def test_a_learning_rate_whose_decay_ends_early_is_named_below_the_sizes():
    config = _with_critics(0)
    decay = dataclasses.replace(config.actor_optimizer, schedule="cosine", decay_steps=64)
    lines = describe_sizes(dataclasses.replace(config, actor_optimizer=decay)).splitlines()
    assert lines[-1].startswith("the actor's learning rate reaches its end, 0, in step 3 of ")
