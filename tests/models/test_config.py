"""Architectures: what config.json says is what is computed, and comes back the same."""

import dataclasses

import jax
import pytest
from flax.core import meta

from asyppo_jax.models.actor_critic import Actor, actor_shapes
from asyppo_jax.models.config import ModelError, from_huggingface, to_huggingface
from tests.tiny import ARCHITECTURES, QWEN3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_survives_the_way_to_hugging_face_and_back(name):
    architecture = ARCHITECTURES[name]
    assert from_huggingface(to_huggingface(architecture), "here") == architecture


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_number_of_parameters_is_that_of_the_trunk(name):
    architecture = dataclasses.replace(ARCHITECTURES[name], tie_embeddings=True)
    shapes = meta.unbox(actor_shapes(Actor(architecture)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == architecture.num_params


def test_an_unknown_architecture_is_refused_by_name():
    values = to_huggingface(QWEN3) | {"model_type": "mamba"}
    with pytest.raises(ModelError, match=r"here.*mamba"):
        from_huggingface(values, "here")
