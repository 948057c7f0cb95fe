"""Old settings keep loading, and a setting says itself whether it may change on resume."""

import dataclasses
import json
import typing

import pytest

from asyppo_jax.config import Config, ConfigError, default_config, from_config_dict, from_dict
from asyppo_jax.config.reading import RENAMED, may_change, setting_names, unknown_setting
from asyppo_jax.config.settings import AlgorithmConfig


def saved(**sections):
    """The settings of a run as an earlier version wrote them; None removes a field."""
    values = json.loads(json.dumps(dataclasses.asdict(Config())))
    for section, changes in sections.items():
        for field, value in changes.items():
            if value is None:
                del values[section][field]
            else:
                values[section][field] = value
    return values


OLD = [
    ({"algorithm": {"values": "after_update", "value_timing": None}}, "value_timing"),
    ({"sampling": {"parts": 4, "chunks": None}}, "chunks"),
    ({"mesh": {"gather": "layer", "reduce": "microbatch", "zero_stage": None}}, 3),
    ({"mesh": {"gather": "minibatch", "reduce": "microbatch", "zero_stage": None}}, 2),
    ({"mesh": {"gather": "minibatch", "reduce": "minibatch", "zero_stage": None}}, 1),
    ({"mesh": {"gather": "minibatch", "zero_stage": None}}, 2),  # before `reduce` existed
]


@pytest.mark.parametrize(("sections", "expected"), OLD)
def test_settings_of_an_old_run_load_under_their_new_names(sections, expected):
    config = from_dict(saved(**sections))
    if expected == "value_timing":
        assert config.algorithm.value_timing == "after_update"
    elif expected == "chunks":
        assert config.sampling.chunks == 4
    else:
        assert config.mesh.zero_stage == expected


@pytest.mark.parametrize(
    ("damaged", "sentence"),
    [
        ([], r"settings are sections by name, not \[\]"),
        ({"algorithm": 3}, "config.algorithm is 3; it is a section of settings"),
        (saved(mesh={"gather": "row", "zero_stage": None}), "config.mesh.gather is 'row', which"),
        (saved(algorithm={"gamma": "1"}), "config.algorithm.gamma is '1'; it must be a number"),
        (saved(sampling={"stop_tokens": "x"}), "stop_tokens is 'x'; it must be a tuple"),
    ],
)
def test_damaged_settings_are_refused_in_one_sentence(damaged, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_dict(damaged)


def test_every_renamed_setting_is_tried_above():
    tried = {f"{s}.{f}" for sections, _ in OLD for s, fields in sections.items() for f in fields}
    assert {name for old, _, _ in RENAMED for name in old} <= tried


def test_an_old_run_without_critics_was_grpo():
    config = from_dict(saved(algorithm={"num_critics": 0, "advantages": None}))
    assert config.algorithm.advantages == "grpo"
    config = from_dict(saved(algorithm={"advantages": None}))
    assert config.algorithm.advantages == "gae"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("algorithm.values", "algorithm.value_timing"),
        ("sampling.parts", "sampling.chunks"),
        ("mesh.reduce", "mesh.zero_stage"),
    ],
)
def test_an_old_name_in_new_settings_is_refused_with_the_new_one(old, new):
    values = default_config()
    section, field = old.split(".")
    with values.unlocked():
        values[section][field] = 1
    with pytest.raises(ConfigError, match=rf"config\.{old} is now config\.{new}; docs/configs.md"):
        from_config_dict(values)
    assert unknown_setting(field) == unknown_setting(
        old
    )  # of a config file only the field is known


def test_a_name_that_never_was_a_setting_gives_the_nearest_or_the_list_of_all():
    assert unknown_setting("samplng.chunks").endswith("did you mean config.sampling.chunks?")
    assert unknown_setting("num_critic").endswith("did you mean config.algorithm.num_critics?")
    assert unknown_setting("gama").endswith("did you mean config.algorithm.gamma?")
    assert unknown_setting("actor").endswith("did you mean config.actor.path?")  # a section
    assert "docs/configs.md" in unknown_setting("zzz")


def test_new_names_are_settings_and_old_names_are_not():
    known = set(setting_names())
    assert {"seed", "sampling.temperature", "critic.num_layers"} <= known
    assert {new for _, new, _ in RENAMED} <= known
    assert not {name for old, _, _ in RENAMED for name in old} & known


def test_what_may_change_on_resume_changes_no_number():
    names = may_change()
    assert {"num_steps", "mesh.data", "mesh.zero_stage", "log.samples_every"} <= names
    assert not {n for n in names if n.startswith(("algorithm.", "sampling.", "batching."))}


def test_every_estimator_and_aggregation_is_a_setting():
    from asyppo_jax.algorithm.advantages import ESTIMATORS
    from asyppo_jax.ops.aggregation import Aggregation

    hints = typing.get_type_hints(AlgorithmConfig)
    assert set(typing.get_args(hints["advantages"])) == set(ESTIMATORS)
    assert hints["loss_aggregation"] == Aggregation


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("", "num_steps", "30", r"^config\.num_steps is '30'; it must be a whole number$"),
        ("actor_optimizer", "learning_rate", "1e-4", r"^config\.actor_optimizer\.learning_rate is"),
        (
            "reward",
            "function",
            len,
            r"must be a text; a function is an argument: train\(",
        ),
        (
            "",
            "algorithm",
            {"clip_eps_high": 0.28},
            r"algorithm is a section of settings; .* several with settings\.algorithm\.update\(",
        ),
        ("", "actor", "some/model", r"is a section .* such as settings\.actor\.path = \.\.\."),
        ("", "train_data", [{"problem": "1"}], r"section .* settings\.train_data\.path = \.\.\."),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_in_one_sentence(section, field, value, message):
    settings = default_config()
    settings.algorithm = default_config().algorithm  # a whole section may be replaced
    with pytest.raises(TypeError, match=message):
        setattr(settings[section] if section else settings, field, value)
