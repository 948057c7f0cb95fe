"""The name table: every leaf has one name, and both conversions are inverse to each other."""

from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from asyppo_jax.models.formats.name_table import full_name, layer_table, parse_name, top_table
from tests.tiny import ARCHITECTURES, make_actor_params, make_networks


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_table_covers_every_parameter_once(name):
    architecture = ARCHITECTURES[name]
    params = make_actor_params(make_networks(0, architecture))
    leaves: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(params)
    entries = [*layer_table(architecture).values(), *top_table(architecture, "actor").values()]
    assert sorted(entry.leaf for entry in entries) == sorted(leaves)
    for entry in entries:
        stacked = "layers" in entry.leaf
        assert leaves[entry.leaf].shape[stacked:] == entry.shape


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_converting_a_tensor_to_our_layout_and_back_changes_nothing(name):
    architecture = ARCHITECTURES[name]
    rng = np.random.default_rng(0)
    tables = layer_table(architecture) | top_table(architecture, "critic")
    for entry in jax.tree.leaves(tables, is_leaf=lambda x: hasattr(x, "leaf")):
        tensor = rng.normal(size=entry.their_shape)
        ours = entry.to_ours(tensor)
        assert ours.shape == entry.shape
        np.testing.assert_array_equal(entry.to_theirs(ours), tensor)


def test_names_with_and_without_the_prefix_are_the_same_parameter():
    for name in ("model.layers.12.mlp.up_proj.weight", "layers.12.mlp.up_proj.weight"):
        assert parse_name(name) == (12, "mlp.up_proj.weight")
    assert full_name(12, "mlp.up_proj.weight") == "model.layers.12.mlp.up_proj.weight"
    assert full_name(None, "lm_head.weight") == "lm_head.weight"
    assert parse_name("model.layers.0.self_attn.rotary_emb.inv_freq") is None
