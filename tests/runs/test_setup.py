"""A run's config with the functions that were given to `train`."""

import functools

import jax.numpy as jnp
import pytest

from asyppo_jax.config import Config, ConfigError, default_config
from asyppo_jax.runs.setup import run_origin, with_functions
from asyppo_jax.tasks.rewards import exact, math


def my_loss(log_probs, entropy, rows, config, *, scale=1.0):
    return -scale * rows.advantages * log_probs


def test_a_config_without_functions_is_the_config():
    assert with_functions(Config(), None, None) == Config()


def test_editable_settings_are_frozen_and_checked():
    values = default_config()
    values.sampling.num_prompts = 64
    assert with_functions(values, None, None).sampling.num_prompts == 64
    for other in ("quickstart", default_config, None):
        with pytest.raises(ConfigError, match="; give settings: get_config"):
            with_functions(other, None, None)
    values.sampling.chunks = 3
    with pytest.raises(ConfigError, match=r"config\.sampling\.chunks is 3"):
        with_functions(values, None, None)


def test_the_config_records_the_names_of_functions():
    loss = functools.partial(my_loss, scale=2.0)
    config = with_functions(Config(), loss, [exact, math])
    assert config.algorithm.loss == f"{__name__}:my_loss"
    assert config.reward.function.split(",") == [
        "asyppo_jax.tasks.rewards.graders:exact",
        "asyppo_jax.tasks.rewards.graders:math",
    ]


def test_a_loss_that_does_not_fit_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"returned \(\) for arrays of shape"):
        with_functions(Config(), lambda *arrays: jnp.float32(0), None)


def test_a_run_says_on_what_it_ran_and_by_which_version():
    origin = run_origin()
    assert "cpu" in origin["device"] and origin["version"].startswith("asyppo_jax ")


@pytest.mark.parametrize("reward", ["exact", 1.0, [], ["exact"]])
def test_a_reward_that_is_no_function_is_refused(reward):
    with pytest.raises(ConfigError, match=r"reward is .*; give one function or a list"):
        with_functions(Config(), None, reward)
