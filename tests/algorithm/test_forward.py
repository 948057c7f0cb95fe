"""What the networks say of completions, a microbatch at a time."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.forward import ensemble_values
from tests.simulated import run_module
from tests.tiny import PROMPT


def test_a_value_is_read_before_its_token_is_chosen(setting):
    """V_k(s_t) is the critic's output at t − 1: a later token cannot change it."""
    config, networks, state, experience = setting
    rollout = experience.rollout
    values = jax.jit(lambda r: ensemble_values(state.critic_params, r, networks, config))(rollout)
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    for k in range(2):
        one = jax.tree.map(lambda x, k=k: x[k], state.critic_params)
        every = networks.critic_values(one, rollout.tokens, mask)
        expected = np.where(rollout.completion_mask, every[:, PROMPT - 1 : -1], 0)
        ours = np.where(rollout.completion_mask, values[k], 0)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.slow
def test_the_gradient_of_a_sharded_head_is_that_of_one_device(tmp_path):
    out = tmp_path / "difference.json"
    run_module("tests.head_program", str(out), devices=8)
    assert json.loads(out.read_text()) < 1e-5
