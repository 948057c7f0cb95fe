"""Ctrl-C during compilations and evaluations, which are not waited for; SIGTERM anywhere."""

import contextlib
import signal

import orbax.checkpoint as ocp
import pytest

import asyppo_jax.loop
import asyppo_jax.runs.collect
from asyppo_jax.config import CheckpointConfig
from asyppo_jax.loop import Loop
from asyppo_jax.runs.checkpoint import make_manager, saved_steps
from asyppo_jax.runs.interrupt import Stopped
from asyppo_jax.runs.metrics import read_metrics
from asyppo_jax.train import train
from tests.short_run import press_while, short_run
from tests.tiny import assert_trees_equal, save_model_directory


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_directory(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(("function", "when"), [("_step", 1), ("_evaluate", 1)])
def test_ctrl_c_while_it_compiles_or_evaluates_stops_at_once(
    model, tmp_path, monkeypatch, capsys, function, when
):
    monkeypatch.setattr(Loop, "_step", pytest.fail)
    press_while(monkeypatch, function, when)
    monkeypatch.setattr(asyppo_jax.loop, "check_scored", lambda *_: None)
    if function == "_step":
        monkeypatch.setattr(Loop, "_evaluate", lambda *_: {"evaluate/accuracy": 0.5})
    with pytest.raises(KeyboardInterrupt, match="stopped before the first checkpoint"):
        train(short_run(model), tmp_path)
    assert "finishing" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "function", "step"),
    [(Loop, "_evaluate", 0), (asyppo_jax.runs.collect, "_score", 1)],
)
def test_ctrl_c_that_is_swallowed_while_it_compiles_ends_the_run_after_that_work(
    model, tmp_path, monkeypatch, module, function, step
):
    swallowing = getattr(module, function)

    def press_and_swallow(*arguments, **options):
        with contextlib.suppress(KeyboardInterrupt):  # as a callback of JAX does
            signal.raise_signal(signal.SIGINT)
        return swallowing(*arguments, **options)

    monkeypatch.setattr(module, function, press_and_swallow)
    with pytest.raises(KeyboardInterrupt):
        train(short_run(model), tmp_path)
    assert saved_steps(str(tmp_path)) == ([step] if step else [])


def _results(workdir):
    timed = ("time/", "rollout/tokens_per_s")
    rows = read_metrics(workdir / "metrics.jsonl")
    rows = [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]
    with make_manager(str(workdir), CheckpointConfig()) as manager:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore())
        restored = manager.restore(3, args=args)
    return rows, restored["state"], restored["data"]


@pytest.fixture(scope="module")
def straight(model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    train(_three_steps(model), workdir)
    return workdir


def _three_steps(model):
    return short_run(model, num_steps=3, checkpoint__every=0, evaluation__every=2)


@pytest.mark.parametrize(
    ("module", "function", "when", "step"),
    [
        pytest.param(Loop, "_evaluate", 1, None, marks=pytest.mark.slow),
        (asyppo_jax.runs.collect, "_score", 2, 1),  # step 2 is dropped
        (asyppo_jax.loop, "require_finite", 2, 2),  # step 2 is finished, its evaluation is not
        pytest.param(asyppo_jax.loop, "require_finite", 1, 1, marks=pytest.mark.slow),
        pytest.param(Loop, "_evaluate", 3, 3, marks=pytest.mark.slow),  # the last step
    ],
)
def test_sigterm_loses_no_step_and_the_same_command_gives_every_bit(
    model, straight, tmp_path, monkeypatch, capsys, module, function, when, step
):
    with monkeypatch.context() as patched:
        press_while(patched, function, when, module, signal.SIGTERM)
        with pytest.raises(Stopped, match="stopped by SIGTERM") as stopped:
            train(_three_steps(model), tmp_path)
    assert stopped.value.number == signal.SIGTERM
    assert saved_steps(str(tmp_path)) == ([step] if step else [])
    capsys.readouterr()
    train(_three_steps(model), tmp_path)
    assert not step or f"resuming after step {step}" in capsys.readouterr().out
    rows, state, data = _results(tmp_path)
    expected_rows, expected_state, expected_data = _results(straight)
    assert rows == expected_rows
    assert_trees_equal(state, expected_state)
    if step == 3:  # the evaluation's mark stays, and the metrics say that it was made up for
        data.pop("unevaluated")
        train(_three_steps(model), tmp_path)
        assert "the run is finished" in capsys.readouterr().out
    assert data == expected_data


@pytest.mark.slow
def test_a_run_that_was_stopped_before_evaluating_step_1_keeps_the_metrics_of_step_0(
    model, tmp_path, monkeypatch, capsys
):
    config = short_run(model, num_steps=1, checkpoint__every=0)
    with monkeypatch.context() as patched:
        press_while(patched, "require_finite", 1, asyppo_jax.loop, signal.SIGTERM)
        with pytest.raises(Stopped):
            train(config, tmp_path)
    train(config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "evaluate/accuracy" in row] == [0, 1]
    assert "has no line" not in capsys.readouterr().out
