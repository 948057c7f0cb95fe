"""Prefill in batches of similar length: the same results, in the order of the prompts."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.sampling.prefill import bucket_widths, prefill
from asyppo_jax.types import PromptBatch
from tests.tiny import VOCABULARY, make_actor_params, make_networks

NETWORKS = make_networks(0)


@pytest.mark.parametrize(
    ("width", "expected"), [(5, (5,)), (127, (127,)), (128, (64, 128)), (300, (75, 150, 300))]
)
def test_widths_are_halved_down_to_the_minimum(width, expected):
    assert bucket_widths(width) == expected


def test_batched_prefill_equals_prefill_of_each_prompt_alone(monkeypatch):
    """Six prompts in three batches; the shortest fit the narrowest width, the longest do not."""
    # Imported by name, because the function `prefill` hides the module in the package.
    module = importlib.import_module("asyppo_jax.sampling.prefill")
    monkeypatch.setattr(module, "_MIN_WIDTH", 4)
    width, lengths = 16, np.array([16, 1, 4, 9, 3, 5])
    assert len(bucket_widths(width)) == 3
    tokens = jax.random.randint(jax.random.key(0), (6, width), 0, VOCABULARY)
    prompts = PromptBatch(tokens, jnp.arange(width)[None] >= width - lengths[:, None])
    params = make_actor_params(NETWORKS)
    batched = jax.jit(partial(prefill, networks=NETWORKS))(params, prompts)
    batched_lengths, logits, kv_cache = batched
    np.testing.assert_array_equal(batched_lengths, lengths)
    aligned = jnp.stack([jnp.roll(row, n) for row, n in zip(tokens, lengths, strict=True)])
    prefill_one = jax.jit(NETWORKS.actor_prefill)
    for i, length in enumerate(lengths):
        inputs = params, aligned[i : i + 1], jnp.array([length])
        expected_logits, expected_kv_cache = prefill_one(*inputs)
        np.testing.assert_allclose(logits[i], expected_logits[0], atol=1e-5)
        for ours, expected in zip(kv_cache, expected_kv_cache, strict=True):
            np.testing.assert_allclose(ours[:, i, :length], expected[:, 0, :length], atol=1e-5)
