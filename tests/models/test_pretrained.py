"""A run's networks from the directories of its config."""

import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.config import ConfigError
from asyppo_jax.models.actor_critic import in_compute_dtype
from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats.huggingface import save_params
from asyppo_jax.models.pretrained import (
    load_actor_params,
    load_critic_params,
    load_networks,
    load_reference_params,
)
from tests.tiny import assert_trees_equal, make_config, save_model_directory


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_directory(tmp_path_factory.mktemp("model"))


def test_critics_start_from_the_actors_first_layers_with_heads_of_their_own(model):
    config = make_config(2, actor__path=model, critic__num_layers=1)
    networks = load_networks(config)
    actor, critics = load_actor_params(config, networks), load_critic_params(config, networks)
    trunk, whole = critics["decoder"]["layers"]["mlp"], actor["decoder"]["layers"]["mlp"]
    for k in range(2):
        np.testing.assert_array_equal(trunk["up_kernel"][k], whole["up_kernel"][:1])
    heads = critics["value_kernel"]
    assert heads.shape[0] == 2 and (heads[0] != heads[1]).any()


def test_heads_depend_on_the_seed_and_can_be_made_equal(model):
    def heads(**changes):
        config = make_config(2, actor__path=model, critic__num_layers=1, **changes)
        return load_critic_params(config, load_networks(config))["value_kernel"]

    assert (heads(seed=0) != heads(seed=1)).any()
    equal = heads(algorithm__distinct_value_heads=False)
    np.testing.assert_array_equal(equal[0], equal[1])


def test_a_saved_critic_brings_its_value_head(model, tmp_path):
    config = make_config(2, actor__path=model, critic__num_layers=1)
    networks = load_networks(config)
    assert networks.critic is not None
    stack = load_critic_params(config, networks)
    one = {"decoder": stack["decoder"], "value_bias": np.float32(0.5)}
    import jax

    one = jax.tree.map(lambda x: x[0] if np.ndim(x) else x, one)
    one["value_kernel"] = np.arange(32, dtype=np.float32)
    save_params(tmp_path, networks.critic.config, one, "critic")
    again = make_config(2, actor__path=model, critic__path=str(tmp_path))
    loaded = load_critic_params(again, load_networks(again))
    kernels = loaded["value_kernel"]
    noise = kernels - np.arange(32)
    sizes = np.linalg.norm(noise, axis=1) / np.linalg.norm(np.arange(32))
    assert (kernels[0] != kernels[1]).any() and (abs(sizes - 0.1) < 0.05).all()
    equal = make_config(
        2, actor__path=model, critic__path=str(tmp_path), algorithm__distinct_value_heads=False
    )
    copies = load_critic_params(equal, load_networks(equal))
    np.testing.assert_array_equal(copies["value_kernel"], [np.arange(32)] * 2)
    np.testing.assert_array_equal(loaded["value_bias"], [0.5, 0.5])
    assert_trees_equal(loaded["decoder"], stack["decoder"])


def test_without_critics_none_are_loaded(model):
    config = make_config(0, actor__path=model)
    networks = load_networks(config)
    assert networks.critic is None and load_critic_params(config, networks) == {}


def test_the_reference_is_the_actor_in_its_compute_dtype(model):
    config = make_config(0, actor__path=model, actor__dtype="bfloat16", algorithm__kl_coef=0.1)
    networks = load_networks(config)
    reference = load_reference_params(config, networks)
    actor = load_actor_params(config, networks)
    assert_trees_equal(reference, in_compute_dtype(actor, jnp.dtype("bfloat16")))
    assert reference["decoder"]["layers"]["mlp"]["up_kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("platform", "packing", "rows_per_prompt", "form"),
    [
        ("tpu", False, 1, "splash"),
        ("tpu", True, 1, "splash"),
        ("tpu", False, 4, "splash"),
        ("tpu", True, 4, "xla"),
        ("gpu", False, 1, "cudnn"),
        ("gpu", True, 1, "cudnn_packed"),
        ("gpu", False, 4, "cudnn_packed"),
        ("cpu", True, 4, "xla"),
    ],
)
def test_attention_is_one_that_serves_the_layout_of_rows(
    model, platform, packing, rows_per_prompt, form
):
    layout = {"batching__packing": packing, "batching__rows_per_prompt": rows_per_prompt}
    config = make_config(2, actor__path=model, batching__microbatch_size=8, **layout)
    networks = load_networks(config, platform)
    assert networks.critic is not None
    assert networks.actor.attention == networks.critic.attention == form


def test_splash_is_refused_where_packed_completions_share_a_prompt(model):
    layout = {"batching__packing": True, "batching__rows_per_prompt": 2}
    config = make_config(0, actor__path=model, actor__attention="splash", **layout)
    with pytest.raises(ConfigError, match=r"splash.*set attention to 'auto' or 'xla'"):
        load_networks(config)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"actor__attention": "cudnn"}, "attention='cudnn' is a kernel for gpu, but .* a cpu; set"),
        ({"actor__attention": "splash"}, "attention='splash' is a kernel for tpu, but this is a"),
    ],
)
def test_a_kernel_of_another_platform_is_refused(model, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_networks(make_config(0, actor__path=model, **changes), "cpu")


def test_an_empty_path_is_refused():
    with pytest.raises(ModelError, match=r"config\.actor\.path is empty"):
        load_networks(make_config(0))
