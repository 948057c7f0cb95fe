"""What a run prints about a step; test_train.py and test_dynamic_sampling.py see it in runs."""

import pytest

from asyppo_jax.runs.progress import Progress
from asyppo_jax.runs.step_report import warn_if_nothing_can_be_learnt
from tests.tiny import make_config

METRICS = {"rollout/reward_mean": 0.5, "rollout/reward_std": 0.0, "rollout/reward_invalid": 0.0}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "step 3: every reward is 0.5, so nothing can be learnt"),
        ({"rollout/reward_invalid": 32.0}, "step 3: no answer has a reward"),
        ({"rollout/reward_std": 0.1}, ""),
    ],
)
def test_a_step_without_a_spread_of_rewards_is_named(capsys, changes, line):
    warned = warn_if_nothing_can_be_learnt(make_config(), 3, METRICS | changes, Progress(9))
    printed = capsys.readouterr().out
    assert warned == bool(line) == bool(printed) and line in printed
