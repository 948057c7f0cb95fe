"""What an evaluation reports when answers have no score; sampling it is in test_rollouts.py."""

import math

import numpy as np

from asyppo_jax import evaluate as module
from asyppo_jax.evaluate import evaluate
from asyppo_jax.rewards import Scores
from asyppo_jax.rollouts import Answers
from tests.tiny import make_config


def _evaluate(monkeypatch, rewards, valid):
    config = make_config(0, evaluation__batch_size=4)
    answers = Answers(
        prompts=[""] * 4,
        problems=["p"] * 4,
        completions=["c"] * 4,
        answers=["a"] * 4,
        truncated=np.array([True, False, False, False]),
        lengths=np.array([9, 1, 2, 4]),
    )
    monkeypatch.setattr(module, "read_answers", lambda *_: answers)

    class Pool:
        def score(self, *_):
            return Scores(np.array(rewards, np.float32), np.array(valid), {})

    import jax

    def sampler(*_):
        return None

    return evaluate(sampler, {}, [None] * 4, Pool(), jax.random.key(0), config, None)  # type: ignore


def test_answers_without_a_score_are_counted_and_left_out_of_the_accuracy(monkeypatch):
    result = _evaluate(monkeypatch, [1.0, 0.0, 0.0, 1.0], [True, True, False, True])
    assert result.accuracy == np.float32(2 / 3)
    assert result.invalid == 1
    assert result.truncated == 0.25 and result.completion_length == 4.0


def test_without_any_score_the_accuracy_is_unknown(monkeypatch):
    result = _evaluate(monkeypatch, [0.0] * 4, [False] * 4)
    assert math.isnan(result.accuracy) and result.invalid == 4
