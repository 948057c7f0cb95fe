"""Architectures: the conversion from and to config.json, and the number of parameters."""

import dataclasses

import jax
import pytest
from flax.core import meta

from asyppo_jax.models.actor_critic import Actor, actor_shapes
from asyppo_jax.models.config import ModelError, from_huggingface, to_huggingface
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
