"""Held-out evaluation: every problem counts once, and unscored answers count only as invalid."""

import jax
import pytest

from asyppo_jax.config import RewardConfig
from asyppo_jax.evaluation.held_out import evaluate
from asyppo_jax.sampling.sampler import evaluation_options
from asyppo_jax.tasks.rewards import RewardPool
from tests.tiny import make_config_sampler, make_sampling_setting

PROBLEMS = ("1+1", "2+3", "4+4", "9+9", "5+1")  # batches of two, so the last one is filled up


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return make_sampling_setting(tmp_path_factory.mktemp("model"), PROBLEMS)


@pytest.mark.filterwarnings("ignore:1.*no score")
def test_each_problem_counts_once_and_unscored_answers_are_counted_separately(setting):
    config, mesh, networks, tokenizer, ids, prompts, params = setting
    sampler = make_config_sampler(
        networks, tokenizer, config, evaluation_options(config, *ids), mesh
    )
    reward = RewardConfig(function="tests.graders:right_for_two_and_three", time_limit=30.0)
    with RewardPool(reward) as pool:
        result = evaluate(sampler, params, prompts, pool, jax.random.key(0), config, mesh)
    # Three answers per problem: those to 1+1 cannot be scored, those to 2+3 are right. The prompts
    # that fill up the last batch repeat 1+1; if they were counted, `invalid` would be larger.
    assert result.invalid == 3
    assert result.accuracy == 3 / 12
    assert 0 <= result.truncated <= 1 and 1 <= result.completion_length <= 9
    assert result.metrics()["evaluate/accuracy"] == result.accuracy
