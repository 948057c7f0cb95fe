"""The fuzz: its inputs are repeatable, none of them is a fault, and a fault would be seen."""

import pytest

from asyppo_jax.config import ConfigError
from experiments.torture import fuzz_inputs
from experiments.torture.fuzz import fuzz, run_input

ONE_OF_EACH = len(fuzz_inputs.KINDS)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
def test_random_inputs_end_in_a_success_or_one_sentence():
    outcomes = fuzz(10 * ONE_OF_EACH, seed=4)
    assert [o for o in outcomes if o.result == "fault"] == []
    assert {o.kind for o in outcomes} == fuzz_inputs.KINDS.keys()
    assert {o.result for o in outcomes} == {"ok", "refused"}
    assert outcomes[3] == run_input(3, seed=4)


def raises(error):
    def call():
        raise error

    return lambda rng, directory: ("made to fail", call)


@pytest.mark.parametrize(
    ("error", "result", "text"),
    [
        (ConfigError("one sentence"), "refused", "one sentence"),
        (ConfigError("two\nlines"), "fault", "a message of several lines"),
        (KeyError("x"), "fault", "KeyError at test_torture_fuzz.py:"),
        (SystemExit(3), "fault", "SystemExit at test_torture_fuzz.py:"),
        (RecursionError(), "fault", "RecursionError at"),
    ],
)
def test_anything_but_one_sentence_is_a_fault(monkeypatch, error, result, text):
    monkeypatch.setitem(fuzz_inputs.KINDS, "setting", raises(error))
    outcome = run_input(0, seed=0)
    assert outcome.result == result and outcome.text.startswith(text)


def test_a_wall_of_output_is_a_fault(monkeypatch):
    chatty = lambda rng, directory: ("chatty", lambda: print("x\n" * 9))  # noqa: E731
    monkeypatch.setitem(fuzz_inputs.KINDS, "setting", chatty)
    assert run_input(0, seed=0).text.startswith("10 lines of output or warnings")
