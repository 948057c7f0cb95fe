"""The critics' update."""

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.algorithm.train_step import score_rollout
from tests.tiny import (
    jit_step,
    make_config,
    make_networks,
    make_rollout,
    make_state,
)


def _experience_shards(config, networks, state, rollout):
    @jax.jit
    def shards():
        key_and_step, options = (state.key, state.step), {"networks": networks, "config": config}
        return score_rollout(state.critic_params, *key_and_step, rollout, **options)[
            0
        ].critic_shards

    return np.asarray(shards())


def test_a_critic_learns_from_its_own_shard_alone():
    """Another reward on a response moves the critic that owns it, by its target, and no other."""
    config, networks = make_config(2), make_networks(2)
    state, rollout = make_state(config, networks), make_rollout(config)
    shards = _experience_shards(config, networks, state, rollout)
    row = int(np.argmax(shards[1]))
    changed = rollout.replace(
        reward_valid=jnp.ones_like(rollout.reward_valid),
        rewards=rollout.rewards.at[row].set(1.0 - rollout.rewards[row]),
    )
    same = rollout.replace(reward_valid=jnp.ones_like(rollout.reward_valid))
    step = jit_step(config, networks)
    first, second = (step(state, r)[0].critic_params["value_kernel"] for r in (same, changed))
    np.testing.assert_array_equal(first[0], second[0])
    assert (first[1] != second[1]).any()
