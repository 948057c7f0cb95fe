"""Settings: one place for defaults, and a sentence for each one that cannot work."""

import copy

import pytest

from asyppo_jax.config import Config, ConfigError, default_config, from_config_dict


def with_changes(**changes):
    values = default_config()
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        target = values[section] if section else values
        target[field] = value
    return from_config_dict(values)


def test_the_defaults_survive_the_way_through_a_config_dict():
    assert from_config_dict(default_config()) == Config()


def test_an_optional_field_keeps_its_type():
    values = default_config()
    values.critic.num_layers = 3
    assert from_config_dict(values).critic.num_layers == 3
    with pytest.raises(TypeError):
        values.critic.num_layers = "three"


def test_an_unknown_setting_is_an_error_at_every_depth():
    values = default_config()
    message = r"^config\.algorithm\.gama is not a setting; did you mean config\.algorithm\.gamma\?$"
    for settings in (values, copy.deepcopy(values)):
        with pytest.raises(AttributeError, match=message):
            settings.algorithm.gama = 0.9
        with pytest.raises(AttributeError, match=message):
            _ = settings.algorithm.gama
    with pytest.raises(AttributeError, match=r"algoritm is not .* mean config\.algorithm\?$"):
        values.algoritm.gamma = 0.9
    with values.unlocked():
        values.algorithm.gama = 0.9
    with pytest.raises(
        ConfigError, match=r"config\.algorithm\.gama is not a setting; .*algorithm\.gamma"
    ):
        from_config_dict(values)


def test_the_microbatch_of_a_critic_is_its_share_unless_it_is_given():
    assert with_changes().batching.critic_microbatch(2) == 8
    assert with_changes(batching__critic_microbatch_size=4).batching.critic_microbatch(2) == 4


def test_options_of_values_and_advantages_are_listed_where_they_differ():
    assert Config().options == ""
    config = with_changes(value__head="sigmoid", value__loss="bce", algorithm__gae_lambda=0.95)
    assert config.options == "head=sigmoid, loss=bce, gae_lambda=0.95"
