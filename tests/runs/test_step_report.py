"""What a run prints about a step; test_train.py and test_dynamic_sampling.py see it in runs."""

import pytest

from asyppo_jax.config import ConfigError
from asyppo_jax.runs.progress import Progress
from asyppo_jax.runs.step_report import count_unscored, warn_if_nothing_can_be_learnt
from asyppo_jax.tasks.rewards import RewardPool
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


def test_the_third_step_in_a_row_without_a_score_ends_the_run(capsys):
    config, count = make_config(reward__function="exact"), 0
    arguments = config, RewardPool(config.reward), 5
    none = METRICS | {"rollout/reward_invalid": 32.0}
    for invalid, expected in ((32.0, 1), (31.0, 0), (32.0, 1), (32.0, 2)):
        metrics = METRICS | {"rollout/reward_invalid": invalid}
        count = count_unscored(*arguments, metrics, count)
        assert count == expected
    assert capsys.readouterr().out.count("NO ANSWER HAS A SCORE") == 3
    with pytest.raises(ConfigError, match=r"no answer of the last 3 steps got a reward from .*run"):
        count_unscored(*arguments, none, count)
