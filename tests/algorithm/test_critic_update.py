"""The critics' update."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.critic_update import update_critics
from asyppo_jax.algorithm.train_step import score_rollout
from tests.tiny import (
    assert_trees_close,
    jit_step,
    make_config,
    make_networks,
    make_rollout,
    make_state,
    with_one_prompt_a_group,
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


def _updated(rollout=None, **changes):
    """The critics after one update, without a step around it."""
    config, networks = make_config(2, critic_optimizer__eps=1e-3, **changes), make_networks(2)
    state = make_state(config, networks)
    rollout = make_rollout(config) if rollout is None else rollout

    @partial(jax.jit, static_argnums=0)
    def update(config, rollout):
        clock = state.key, state.step
        experience, _ = score_rollout(
            state.critic_params, *clock, rollout, networks=networks, config=config
        )
        key = jax.random.key(1)
        start = state.critic_params, state.critic_opt_state
        return update_critics(*start, experience, key, networks, config)[0]

    return update(config, rollout)


def test_critics_of_the_same_data_learn_from_every_response():
    """Another reward on one response moves both critics, in as many updates as with a division."""
    config = make_config(2)
    rollout = make_rollout(config)
    other = rollout.replace(rewards=rollout.rewards.at[5].set(1.0 - rollout.rewards[5]))
    first, second = (_updated(r, algorithm__critic_data="all") for r in (rollout, other))
    moved = np.asarray(first["value_kernel"] != second["value_kernel"])
    assert moved[0].any() and moved[1].any()


LAYOUTS = {
    "packed": {"batching__packing": True},
    "shared prompts": {"batching__rows_per_prompt": 4},
    "packed behind shared prompts": {"batching__rows_per_prompt": 4, "batching__packing": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("critic_data", ["prompts", "all"])
def test_the_critics_data_are_the_same_in_every_layout(critic_data, layout):
    """One update per epoch, so that the order in a minibatch, which layouts change, is no part."""
    options = {
        "algorithm__critic_data": critic_data,
        "algorithm__critic_epochs": 2,
        "batching__critic_minibatch_size": 32,
        "batching__actor_minibatch_size": 32,
    }
    config = make_config(2, **options)
    rollout = with_one_prompt_a_group(make_rollout(config), config)
    assert_trees_close(
        _updated(rollout, **options), _updated(rollout, **options, **layout), atol=2e-5
    )
