import pytest

from asyppo_jax.config import from_config_dict
from asyppo_jax.models.actor_critic import Actor, Networks
from asyppo_jax.models.formats.huggingface import load_config, load_params
from configs import asyppo_study
from experiments.asyppo_study import tasks
from experiments.asyppo_study.make_models import MODELS, accuracy
from experiments.asyppo_study.settings import (
    ACTOR_RATE,
    ACTORS,
    BASE_CONFIG,
    METHODS,
    RATES,
    TASKS,
    tuned_name,
    tuning_methods,
)
from experiments.command_line import read_config_file
from experiments.quickstart.make_model import MODEL as QUICKSTART_MODEL
from experiments.study.study import differences


def test_every_method_is_a_valid_config_and_no_two_are_the_same():
    configs = [read_config_file(BASE_CONFIG, settings) for settings in METHODS.values()]
    assert len(set(map(repr, configs))) == len(METHODS)


def test_every_method_has_the_same_budget_and_warm_up():
    base = read_config_file(BASE_CONFIG)
    for settings in METHODS.values():
        config = read_config_file(BASE_CONFIG, settings)
        assert config.sampling == base.sampling and config.num_steps == base.num_steps
        assert config.algorithm.critic_warmup_steps == base.algorithm.critic_warmup_steps


@pytest.mark.parametrize(
    ("method", "quickstart", "own"),
    [
        ("vapo", "quickstart_vapo", {"algorithm.critic_warmup_steps"}),
        ("sp3o_symmetric", "quickstart_sp3o_ppo", set()),
        (
            "easy_ppo_symmetric",
            "quickstart_easy_ppo",
            {"batching.critic_minibatch_size", "batching.critic_microbatch_size"},
        ),
    ],
)
def test_methods_of_the_quickstarts_have_their_settings(method, quickstart, own):
    """But for sizes that depend on the rollout's, and the study's one warm-up."""
    of_quickstart = differences(quickstart, "quickstart")
    mine = {name: value for name, value in METHODS[method].items() if name not in own}
    assert mine == {name: value for name, value in of_quickstart.items() if name not in own}


def test_every_task_and_actor_is_a_valid_config():
    for settings in (*TASKS.values(), *ACTORS.values()):
        read_config_file(BASE_CONFIG, settings)


def test_the_tuning_has_each_method_at_each_rate_once():
    methods = tuning_methods()
    assert len(methods) == 2 * 6 + 5 * 4  # with critics; without
    assert methods["grpo, 3e-05"][ACTOR_RATE] == 3e-5
    configs = [read_config_file(BASE_CONFIG, settings) for settings in methods.values()]
    assert len(set(map(repr, configs))) == len(methods)
    base = read_config_file(BASE_CONFIG)
    assert configs[list(methods).index(tuned_name("asyppo", RATES[0]))] == base


def test_the_base_config_fits_the_tasks():
    config = from_config_dict(asyppo_study.get_config())
    assert config.prompt.max_length == tasks.MAX_PROMPT_LENGTH
    assert config.sampling.max_completion_length == tasks.MAX_COMPLETION_LENGTH
    for model in MODELS.values():
        assert config.critic.num_layers is not None
        assert 3 * config.critic.num_layers <= model.num_layers


@pytest.mark.parametrize("name", MODELS)
def test_the_actors_are_of_two_families_with_about_a_million_parameters(name):
    model = MODELS[name]
    assert model.model_type == name
    assert 1.0e6 <= model.num_params <= 1.3e6
    assert model.vocab_size == QUICKSTART_MODEL.vocab_size  # they share the tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("one_sampler")
def test_a_shipped_actor_is_right_in_a_fifth_to_half_of_its_answers(name):
    directory = ACTORS[name]["actor.path"]
    config = load_config(directory)
    assert config == MODELS[name]
    networks = Networks(Actor(config), None)
    params = load_params(directory, config, "actor")
    for task in tasks.TASKS:
        assert 0.2 < accuracy(task, params, networks, temperature=1.0, num_problems=400) < 0.5
