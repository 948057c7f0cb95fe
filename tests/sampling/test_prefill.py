"""Prefill in batches of like length: the same numbers, in the order of the prompts."""

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
def test_widths_halve_down_to_the_narrowest(width, expected):
    assert bucket_widths(width) == expected


def test_batches_of_like_length_give_what_each_prompt_gives_alone(monkeypatch):
    """Six prompts in three batches; the shortest fit the narrowest width, the longest do not."""
    # By its full name: in the package, the function's name hides the module's.
    module = importlib.import_module("asyppo_jax.sampling.prefill")
    monkeypatch.setattr(module, "_NARROWEST", 4)
    width, lengths = 16, np.array([16, 1, 4, 9, 3, 5])
    assert len(bucket_widths(width)) == 3
    tokens = jax.random.randint(jax.random.key(0), (6, width), 0, VOCABULARY)
    prompts = PromptBatch(tokens, jnp.arange(width)[None] >= width - lengths[:, None])
    params = make_actor_params(NETWORKS)
    found, logits, kept = jax.jit(partial(prefill, networks=NETWORKS))(params, prompts)
    np.testing.assert_array_equal(found, lengths)
    aligned = jnp.stack([jnp.roll(row, n) for row, n in zip(tokens, lengths, strict=True)])
    alone = jax.jit(NETWORKS.actor_prefill)
    for i, length in enumerate(lengths):
        own_logits, own = alone(params, aligned[i : i + 1], jnp.array([length]))
        np.testing.assert_allclose(logits[i], own_logits[0], atol=1e-5)
        for have, want in zip(kept, own, strict=True):
            np.testing.assert_allclose(have[:, i, :length], want[:, 0, :length], atol=1e-5)
