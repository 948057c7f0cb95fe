"""Between text and arrays."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from asyppo_jax.config import MeshConfig
from asyppo_jax.runtime.sharding import make_mesh
from asyppo_jax.sampling.rollouts import join_chunks, one_ahead, sample_in_chunks, with_rewards
from asyppo_jax.sampling.sampler import read_answers, training_options
from tests.tiny import make_config, make_config_sampler, make_rollout


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_a_rollout_in_chunks_is_the_rollout(setting, num_chunks):
    config, mesh, networks, tokenizer, ids, prompts, params = setting
    sampler = make_config_sampler(networks, tokenizer, config, training_options(config, *ids), mesh)
    key, prompts = jax.random.key(0), prompts[:4]
    whole = sampler(params, prompts, key, mesh)
    chunks = list(sample_in_chunks(sampler, params, prompts, key, mesh, num_chunks))
    assert len(chunks) == num_chunks
    joined, answers = join_chunks(chunks, mesh)
    for name in ("tokens", "prompt_mask", "completion_mask"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    np.testing.assert_allclose(joined.log_probs, whole.log_probs, atol=1e-5)
    for have, want in zip(answers, read_answers(whole, prompts, sampler), strict=True):
        np.testing.assert_array_equal(have, want)


def test_the_next_chunk_is_sampled_while_one_is_scored():
    """It has begun, and only it, when a chunk is handed over."""
    begun: list[int] = []

    def start(i: int) -> Any:
        begun.append(i)
        return i

    for i, chunk in enumerate(one_ahead(partial(start, i) for i in range(3))):
        assert chunk == i and begun == list(range(min(i + 2, 3)))
    assert list(one_ahead([])) == []


def test_fractional_rewards_stay_fractions():
    """The trap: an integer buffer for rewards truncates 0.5 to 0."""
    config, mesh = make_config(0), make_mesh(MeshConfig())
    given = np.full(32, 0.5)
    naive = np.zeros(32, np.int32)
    naive[:] = given
    assert naive.sum() == 0
    rollout = with_rewards(make_rollout(config), given, np.ones(32, bool), mesh)
    assert rollout.rewards.dtype == np.float32
    np.testing.assert_array_equal(rollout.rewards, given)
