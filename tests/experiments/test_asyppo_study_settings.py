"""The study's methods: each is a config that can run, and has what its name says."""

import pytest

from experiments.asyppo_study.settings import ACTORS, BASE_CONFIG, METHODS, TASKS
from experiments.command_line import read_config_file
from experiments.study.study import differences


def config_of(method, task="chains", actor="qwen3"):
    return read_config_file(BASE_CONFIG, {**TASKS[task], **ACTORS[actor], **METHODS[method]})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_config_with_the_same_budget(method):
    config, base = config_of(method), config_of("asyppo")
    assert config.sampling == base.sampling and config.num_steps == base.num_steps
    assert config.algorithm.critic_warmup_steps == base.algorithm.critic_warmup_steps
    assert config.actor_optimizer == base.actor_optimizer
    if method != "asyppo":
        assert config != base


def test_no_two_methods_are_the_same():
    configs = [config_of(method) for method in METHODS]
    assert len(set(map(str, configs))) == len(configs)


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
