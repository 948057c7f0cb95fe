"""Ctrl-C during compilations and evaluations, which are not waited for."""

import contextlib
import signal

import pytest

import asyppo_jax.runs.collect
import asyppo_jax.train
from asyppo_jax.runs.checkpoint import saved_steps
from asyppo_jax.train import train
from tests.short_run import press_while, short_run
from tests.tiny import save_model_directory


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_directory(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(("function", "when"), [("_one_step", 1), ("_evaluate", 1)])
def test_ctrl_c_while_it_compiles_or_evaluates_stops_at_once(
    model, tmp_path, monkeypatch, capsys, function, when
):
    monkeypatch.setattr(asyppo_jax.train, "_one_step", pytest.fail)
    press_while(monkeypatch, function, when)
    monkeypatch.setattr(asyppo_jax.train, "_check_scored", lambda *_: None)
    if function == "_one_step":
        monkeypatch.setattr(asyppo_jax.train, "_evaluate", lambda *_: {"evaluate/accuracy": 0.5})
    with pytest.raises(KeyboardInterrupt, match="stopped before the first checkpoint"):
        train(short_run(model), tmp_path)
    assert "finishing" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "function", "step"),
    [(asyppo_jax.train, "_evaluate", 0), (asyppo_jax.runs.collect, "_score", 1)],
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
