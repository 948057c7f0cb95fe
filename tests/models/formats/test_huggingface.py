"""Hugging Face directories: exact round trips, and clear errors for files that do not fit."""

import json
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.core import meta
from safetensors.numpy import load_file, save_file

from asyppo_jax.config import ConfigError
from asyppo_jax.models.actor_critic import init_critics
from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats import huggingface
from asyppo_jax.models.formats.huggingface import (
    first_layers,
    load_config,
    load_params,
    load_value_head,
    save_params,
)
from tests.tiny import ARCHITECTURES, QWEN3, assert_trees_equal, make_actor_params, make_networks


@pytest.fixture(params=list(ARCHITECTURES))
def saved(request, tmp_path):
    architecture = ARCHITECTURES[request.param]
    params = make_actor_params(make_networks(0, architecture))
    save_params(tmp_path, architecture, params, "actor")
    return tmp_path, architecture, params


@pytest.fixture
def tensors(tmp_path):
    """The tensors of a saved Qwen3, for a test to change, and a function that saves and loads."""
    save_params(tmp_path, QWEN3, make_actor_params(make_networks(0)), "actor")
    file = tmp_path / "model.safetensors"
    contents = load_file(file)

    def save_and_load():
        save_file(contents, file)
        return load_params(str(tmp_path), QWEN3, "actor")

    return contents, save_and_load


def test_a_round_trip_is_exact(saved):
    directory, architecture, params = saved
    assert load_config(str(directory)) == architecture
    assert_trees_equal(load_params(str(directory), architecture, "actor"), params)


def test_a_round_trip_of_a_critic_keeps_its_value_head(tmp_path):
    networks = make_networks()
    assert networks.critic is not None
    stack = meta.unbox(init_critics(networks.critic, jax.random.key(0), 2))
    critic = jax.tree.map(lambda x: np.asarray(x[1]), stack)
    save_params(tmp_path, networks.critic.config, critic, "critic")
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["architectures"] == ["Qwen3ForTokenClassification"] and values["num_labels"] == 1
    assert_trees_equal(load_params(str(tmp_path), networks.critic.config, "critic"), critic)


def test_a_model_in_several_files_is_loaded_in_full(saved, monkeypatch):
    directory, architecture, params = saved
    (directory / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface, "_SHARD_BYTES", 20_000)
    save_params(directory, architecture, params, "actor")
    assert len(list(directory.glob("model-*.safetensors"))) > 3
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    assert all((directory / file).is_file() for file in index["weight_map"].values())
    assert_trees_equal(load_params(str(directory), architecture, "actor"), params)


def test_bfloat16_files_load_as_their_exact_float32_values(tmp_path):
    params = make_actor_params(make_networks(0))
    save_params(tmp_path, QWEN3, params, "actor", dtype="bfloat16")
    loaded = load_params(str(tmp_path), QWEN3, "actor")
    expected = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), params)
    assert_trees_equal(loaded, expected)


def test_the_first_layers_make_a_mini_critic(saved):
    directory, architecture, params = saved
    small = first_layers(load_config(str(directory)), 2)
    critic = load_params(str(directory), small, "critic")
    first_two = jax.tree.map(lambda x: x[:2], params["decoder"]["layers"])
    assert_trees_equal(critic["decoder"]["layers"], first_two)
    assert "lm_head" not in critic
    with pytest.raises(ModelError, match="num_layers is 4, but the model has 3 layers"):
        first_layers(architecture, 4)


def test_a_missing_tensor_is_named(tensors):
    contents, save_and_load = tensors
    del contents["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        save_and_load()


def test_an_unknown_tensor_is_named(tensors):
    contents, save_and_load = tensors
    contents["model.layers.0.mlp.router.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(ModelError, match=r"unknown tensor model\.layers\.0\.mlp\.router"):
        save_and_load()


def test_a_tensor_of_another_architecture_is_unexpected(tensors):
    contents, save_and_load = tensors
    contents["model.layers.0.self_attn.q_proj.bias"] = np.zeros(64, np.float32)
    with pytest.raises(ModelError, match=r"unexpected tensor .*q_proj\.bias in a qwen3 model"):
        save_and_load()


def test_an_extra_layer_is_unexpected(tensors):
    contents, save_and_load = tensors
    contents["model.layers.3.input_layernorm.weight"] = np.zeros(32, np.float32)
    with pytest.raises(ModelError, match=r"unexpected tensor .*config\.json has 3 layers"):
        save_and_load()


def test_two_names_for_one_parameter_are_ambiguous(tensors):
    contents, save_and_load = tensors
    contents["norm.weight"] = contents["model.norm.weight"]
    with pytest.raises(ModelError, match="ambiguous"):
        save_and_load()


def test_a_tensor_in_two_files_is_duplicated(tensors, tmp_path):
    contents, save_and_load = tensors
    save_file({"model.norm.weight": contents["model.norm.weight"]}, tmp_path / "z.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight is duplicated"):
        save_and_load()


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite numbers")])
def test_weights_that_are_no_numbers_are_named(tensors, value, kind):
    contents, save_and_load = tensors
    contents["model.layers.1.mlp.up_proj.weight"][1, 2] = value
    with pytest.raises(ModelError, match=rf"layers\.1\.mlp\.up_proj\.weight has {kind}"):
        save_and_load()


def test_a_missing_head_of_an_untied_model_is_explained(tmp_path):
    params = make_actor_params(make_networks(0))
    save_params(tmp_path, QWEN3, params, "actor")
    untied = replace(QWEN3, tie_embeddings=False)
    with pytest.raises(ModelError, match=r"lm_head\.weight is missing.*set tie_word_embeddings"):
        load_params(str(tmp_path), untied, "actor")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_the_prefix_of_a_wrapper_is_named(tensors, prefix):
    contents, save_and_load = tensors
    for name in list(contents):
        contents[prefix + name] = contents.pop(name)
    with pytest.raises(ModelError, match=rf"has the prefix '{re.escape(prefix)}', which a wrapper"):
        save_and_load()


def test_a_damaged_value_head_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"value_head": {"kind": "cubic"}}')
    with pytest.raises(ConfigError, match=r"value_head\.kind is 'cubic'; choose one of"):
        load_value_head(str(tmp_path))
    (tmp_path / "config.json").write_text('{"value_head": {"width": 3}}')
    with pytest.raises(ModelError, match="it must have the fields"):
        load_value_head(str(tmp_path))


def test_the_error_for_a_wrong_shape_names_both_shapes(tensors):
    contents, save_and_load = tensors
    contents["model.norm.weight"] = np.zeros(31, np.float32)
    with pytest.raises(ModelError, match=r"shape \(31,\).*implies \(32,\)"):
        save_and_load()


def test_a_tied_head_that_differs_is_refused_and_an_equal_one_is_not(tensors):
    contents, save_and_load = tensors
    contents["lm_head.weight"] = contents["model.embed_tokens.weight"].copy()
    save_and_load()
    contents["lm_head.weight"][0, 0] += 1
    with pytest.raises(ModelError, match="set tie_word_embeddings to false"):
        save_and_load()


def test_the_error_for_a_truncated_file_names_it(saved):
    directory, architecture, _ = saved
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated or not safetensors"):
        load_params(str(directory), architecture, "actor")


def test_a_directory_without_config_or_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_config(str(tmp_path))
    with pytest.raises(ModelError, match="does not exist"):
        load_config(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not valid JSON"):
        load_config(str(tmp_path))
    (tmp_path / "config.json").write_text('"text"')
    with pytest.raises(ModelError, match=r"config\.json holds a str, not an object"):
        load_config(str(tmp_path))


def test_a_config_with_unsupported_features_is_refused(tmp_path):
    save_params(tmp_path, QWEN3, make_actor_params(make_networks(0)), "actor")
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    changes = {
        "model_type": "gpt2",
        "hidden_act": "gelu",
        "use_sliding_window": True,
        "attention_bias": True,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4},
    }
    for name, value in changes.items():
        file.write_text(json.dumps(values | {name: value}))
        with pytest.raises(ModelError, match="support"):
            load_config(str(tmp_path))


def test_the_older_format_of_rope_settings_is_read_too(tmp_path):
    save_params(tmp_path, QWEN3, make_actor_params(make_networks(0)), "actor")
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    del values["rope_parameters"]
    file.write_text(json.dumps(values | {"rope_theta": 500000.0}))
    assert load_config(str(tmp_path)) == replace(QWEN3, rope_theta=500000.0)
