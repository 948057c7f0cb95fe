"""Hugging Face directories in and out: no bit changes, and six loud errors."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.core import meta
from safetensors.numpy import load_file, save_file

from asyppo_jax.models.actor_critic import init_critics
from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats import huggingface
from asyppo_jax.models.formats.huggingface import (
    first_layers,
    load_config,
    load_params,
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
    """A saved Qwen3 whose tensors a test may spoil, and the function that writes them back."""
    save_params(tmp_path, QWEN3, make_actor_params(make_networks(0)), "actor")
    file = tmp_path / "model.safetensors"
    contents = load_file(file)

    def write():
        save_file(contents, file)
        return load_params(str(tmp_path), QWEN3, "actor")

    return contents, write


def test_a_round_trip_changes_no_bit(saved):
    directory, architecture, params = saved
    assert load_config(str(directory)) == architecture
    assert_trees_equal(load_params(str(directory), architecture, "actor"), params)


def test_a_round_trip_of_a_critic_keeps_its_value_head(tmp_path):
    networks = make_networks()
    assert networks.critic is not None
    stack = meta.unbox(init_critics(networks.critic, jax.random.key(0), 2))
    one = jax.tree.map(lambda x: np.asarray(x[1]), stack)
    save_params(tmp_path, networks.critic.config, one, "critic")
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["architectures"] == ["Qwen3ForTokenClassification"] and values["num_labels"] == 1
    assert_trees_equal(load_params(str(tmp_path), networks.critic.config, "critic"), one)


def test_shards_are_read_as_one(saved, monkeypatch):
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
    whole = params["decoder"]["layers"]
    first_two = jax.tree.map(lambda x: x[:2], whole)
    assert_trees_equal(critic["decoder"]["layers"], first_two)
    assert "lm_head" not in critic
    with pytest.raises(ModelError, match="num_layers is 4; the model has 3"):
        first_layers(architecture, 4)


def test_a_missing_tensor_is_named(tensors):
    contents, write = tensors
    del contents["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        write()


def test_an_unknown_tensor_is_named(tensors):
    contents, write = tensors
    contents["model.layers.0.mlp.router.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(ModelError, match=r"unknown tensor model\.layers\.0\.mlp\.router"):
        write()


def test_a_tensor_of_another_architecture_is_unexpected(tensors):
    contents, write = tensors
    contents["model.layers.0.self_attn.q_proj.bias"] = np.zeros(64, np.float32)
    with pytest.raises(ModelError, match=r"unexpected tensor .*q_proj\.bias in a qwen3 model"):
        write()


def test_a_layer_too_many_is_unexpected(tensors):
    contents, write = tensors
    contents["model.layers.3.input_layernorm.weight"] = np.zeros(32, np.float32)
    with pytest.raises(ModelError, match=r"unexpected tensor .*config\.json has 3 layers"):
        write()


def test_two_names_for_one_place_are_ambiguous(tensors):
    contents, write = tensors
    contents["norm.weight"] = contents["model.norm.weight"]
    with pytest.raises(ModelError, match="ambiguous"):
        write()


def test_a_tensor_in_two_files_is_there_twice(tensors, tmp_path):
    contents, write = tensors
    save_file({"model.norm.weight": contents["model.norm.weight"]}, tmp_path / "z.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight is there twice"):
        write()


def test_a_wrong_shape_names_both(tensors):
    contents, write = tensors
    contents["model.norm.weight"] = np.zeros(31, np.float32)
    with pytest.raises(ModelError, match=r"shape \(31,\).*asks for \(32,\)"):
        write()


def test_a_tied_head_that_differs_is_refused_and_an_equal_one_is_not(tensors):
    contents, write = tensors
    contents["lm_head.weight"] = contents["model.embed_tokens.weight"].copy()
    write()
    contents["lm_head.weight"][0, 0] += 1
    with pytest.raises(ModelError, match="set tie_word_embeddings to false"):
        write()


def test_a_torn_file_is_named(saved):
    directory, architecture, _ = saved
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors is torn or not safetensors"):
        load_params(str(directory), architecture, "actor")


def test_a_directory_without_config_or_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_config(str(tmp_path))
    with pytest.raises(ModelError, match="does not exist"):
        load_config(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        load_config(str(tmp_path))


def test_config_refuses_what_it_would_compute_wrongly(tmp_path):
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


def test_the_older_form_of_rope_settings_is_read_too(tmp_path):
    save_params(tmp_path, QWEN3, make_actor_params(make_networks(0)), "actor")
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    del values["rope_parameters"]
    file.write_text(json.dumps(values | {"rope_theta": 500000.0}))
    assert load_config(str(tmp_path)) == replace(QWEN3, rope_theta=500000.0)
