"""Architectures: the conversion from and to config.json, and the number of parameters."""

import copy
import dataclasses
from typing import Any

import jax
import pytest
from flax.core import meta

from asyppo_jax.models.actor_critic import Actor, actor_shapes
from asyppo_jax.models.config import (
    ModelError,
    beyond_positions,
    from_huggingface,
    to_huggingface,
)
from tests.tiny import ARCHITECTURES, QWEN3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_unchanged_by_a_round_trip_through_config_json(name):
    architecture = ARCHITECTURES[name]
    assert from_huggingface(to_huggingface(architecture), "here") == architecture


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_num_params_counts_the_parameters_without_a_separate_head(name):
    architecture = dataclasses.replace(ARCHITECTURES[name], tie_embeddings=True)
    shapes = meta.unbox(actor_shapes(Actor(architecture)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == architecture.num_params


def test_the_error_for_an_unknown_architecture_names_it():
    values = to_huggingface(QWEN3) | {"model_type": "mamba"}
    with pytest.raises(ModelError, match=r"here.*mamba"):
        from_huggingface(values, "here")


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_hidden_layers": None}, r"here: num_hidden_layers is None; .* whole number in \[1"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; it must be a whole number"),
        ({"vocab_size": 0}, "vocab_size is 0; it must be"),
        ({"hidden_size": 32.5}, "hidden_size is 32.5; it must be"),
        ({"hidden_size": 10**20}, "hidden_size is 100000000000000000000; it must be"),
        ({"intermediate_size": "48"}, "intermediate_size is '48'; it must be"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1; it must be"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 heads of keys"),
        ({"head_dim": 7}, "head_dim is 7, but rotary embeddings need an even number"),
        ({"head_dim": None, "hidden_size": 30}, "is 4, which does not divide hidden_size = 30"),
        ({"rms_norm_eps": "1e-6"}, r"rms_norm_eps is '1e-6'; it must be a number in \(0, 1\]"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan; it must be"),
        ({"rope_parameters": "default"}, "rope_parameters is 'default', not an object"),
        ({"rope_parameters": {"rope_theta": float("nan")}}, "rope_theta is nan; it must be"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5; only"),
        ({"rope_parameters": {"full": {}, "rope_type": {}}}, "rope_type {} is not supported"),
        (
            {"rope_parameters": LLAMA3_ROPE | {"factor": None}},
            "rope_parameters.factor is None; it must be a number",
        ),
        ({"rope_parameters": LLAMA3_ROPE | {"low_freq_factor": 4.0}}, "must be below high_freq"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'; it must be true or"),
        (
            {"quantization_config": {"quant_method": "fp8"}},
            r"has a quantization_config \(fp8\); quantised weights are not supported",
        ),
        ({"layer_types": ["sliding_attention"]}, "layer_types has other layers than"),
    ],
)
def test_a_field_that_has_no_meaning_is_named(changes, sentence):
    with pytest.raises(ModelError, match=sentence) as caught:
        from_huggingface(to_huggingface(QWEN3) | changes, "here")
    assert "\n" not in str(caught.value)


def test_a_config_that_is_no_object_is_refused():
    for values, kind in (("text", "str"), (3, "int"), ([], "list")):
        with pytest.raises(ModelError, match=f"here holds a {kind}, not an object"):
            from_huggingface(values, "here")


SIZES = {
    "vocab_size": 61,
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "intermediate_size": 8,
    "rms_norm_eps": 1e-6,
}


@pytest.mark.parametrize("model_type", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"rope_theta": 3e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": 3e5},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": {}},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": LLAMA3_ROPE},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": LLAMA3_ROPE, "rope_theta": 3e5},
        {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 5e5}, "rope_scaling": {"type": "default"}},
        {
            "rope_parameters": {k: v for k, v in LLAMA3_ROPE.items() if "original" not in k},
            "max_position_embeddings": 77,
        },
    ],
)
def test_missing_fields_and_rope_are_read_as_transformers_does(model_type, rope):
    import transformers

    values = SIZES | {"model_type": model_type} | rope
    theirs: Any = transformers.AutoConfig.for_model(**copy.deepcopy(values))
    ours = from_huggingface(values, "here")
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == getattr(theirs, "head_dim", 128 // 32)
    assert ours.tie_embeddings == theirs.tie_word_embeddings
    rope_of_theirs = theirs.rope_parameters
    assert ours.rope_theta == rope_of_theirs["rope_theta"]
    kind = "default" if ours.rope_scaling is None else "llama3"
    assert kind == rope_of_theirs["rope_type"]
    if ours.rope_scaling is not None:
        positions = rope_of_theirs["original_max_position_embeddings"]
        assert ours.rope_scaling.original_max_position == positions


def test_rope_scaling_that_transformers_would_take_is_refused_beside_rope_parameters():
    both = {
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        "rope_scaling": {"type": "linear", "factor": 2.0},
    }
    with pytest.raises(ModelError, match="rope_type 'linear' is not supported"):
        from_huggingface(SIZES | {"model_type": "llama"} | both, "here")


def test_sequences_longer_than_the_positions_give_a_sentence():
    values = SIZES | {"model_type": "llama", "max_position_embeddings": 32}
    config = from_huggingface(values, "here")
    assert beyond_positions(config, 32, "actor") == ""
    assert "longer than the max_position_embeddings = 32 of the actor" in beyond_positions(
        config, 96, "actor"
    )
    assert beyond_positions(QWEN3, 10**6, "actor") == ""  # not known
    assert to_huggingface(config)["max_position_embeddings"] == 32
