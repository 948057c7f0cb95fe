"""Critics that start from those of another run."""

import dataclasses

import jax
import numpy as np
import pytest

from asyppo_jax.algorithm.state import create_train_state
from asyppo_jax.config import ConfigError
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.runs.checkpoint import CheckpointConfig, make_manager, save, write_settings
from asyppo_jax.runs.warm_start import warm_start_params, with_warm_start
from asyppo_jax.runtime.sharding import make_mesh
from tests.tiny import assert_trees_equal, make_config, save_model_directory


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_directory(tmp_path_factory.mktemp("model"))


def write_run(directory, model, num_critics, **changes):
    config = make_config(num_critics, actor__path=model, critic__num_layers=1, seed=5, **changes)
    state = jax.jit(lambda: create_train_state(config, load_networks(config)))()
    write_settings(str(directory), dataclasses.asdict(config))
    with make_manager(str(directory), CheckpointConfig()) as manager:
        save(manager, state.replace(step=np.int32(3)), {}, None)
    return str(directory), state.critic_params


@pytest.fixture(scope="module")
def pair(model, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("pair"), model, 2)


def start_from(run, model, num_critics=2, **changes):
    config = with_warm_start(
        make_config(num_critics, actor__path=model, critic__path=run, **changes)
    )
    return config, warm_start_params(config, load_networks(config), make_mesh(config.mesh))


def test_critics_start_with_the_bits_of_the_run_and_with_its_architecture(pair, model):
    run, params = pair
    config, started = start_from(run, model)
    assert config.critic.path == model and config.critic.num_layers == 1
    assert config.value.warm_start == run
    assert_trees_equal(started, params)
    again = with_warm_start(config)  # as read from a config.json
    assert again == config


def test_one_critic_is_copied_with_heads_that_differ(model, tmp_path):
    run, params = write_run(tmp_path, model, 1)
    _, started = start_from(run, model, 4)
    for k in range(4):
        np.testing.assert_array_equal(
            started["decoder"]["final_norm"]["scale"][k],
            params["decoder"]["final_norm"]["scale"][0],
        )
    kernels, kernel = started["value_kernel"], params["value_kernel"][0]
    assert len({tuple(np.asarray(x).tolist()) for x in kernels}) == 4
    distance = np.linalg.norm(kernels - kernel[None], axis=1) / np.linalg.norm(kernel)
    np.testing.assert_allclose(distance, 0.1, rtol=0.6)


@pytest.mark.parametrize(
    ("num_critics", "changes", "sentence"),
    [
        (4, {}, "which has 2 critics, but config.algorithm.num_critics is 4; make it 2"),
        (2, {"value__head": "atan"}, "whose config.value.head is 'linear', but here it is 'atan'"),
        (2, {"value__anchor": "group"}, "whose config.value.anchor is 'none'"),
        (
            2,
            {"value__reference_answer": "{answer} "},
            r"reference_answer is '', but here it is '\{answer\} '; use the same",
        ),
        (2, {"critic__num_layers": 2}, "have num_layers = 1, but config.critic.num_layers is 2"),
        (0, {}, "but config.algorithm.num_critics is 0"),
    ],
)
def test_critics_that_do_not_fit_are_refused_in_one_sentence(
    pair, model, num_critics, changes, sentence
):
    config = make_config(num_critics, actor__path=model, critic__path=pair[0], **changes)
    with pytest.raises(ConfigError, match=sentence):
        with_warm_start(config)


def test_what_is_no_run_is_refused_and_a_model_is_left_alone(model, tmp_path):
    config = make_config(2, actor__path=model, value__warm_start=str(tmp_path))
    with pytest.raises(ConfigError, match="is no run with checkpoints"):
        with_warm_start(config)
    plain = make_config(2, actor__path=model, critic__path=model)
    assert with_warm_start(plain) == plain
