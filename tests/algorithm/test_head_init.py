"""Value heads after the first rollout: the mean reward, and the wanted spread."""

import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.forward import value_anchor
from asyppo_jax.ops.masked import masked_mean, masked_variance
from tests.algorithm.test_value_options import HEADS, start, start_heads, values_of


@pytest.mark.parametrize("changes", HEADS.values(), ids=HEADS)
def test_heads_start_at_the_mean_reward_with_the_wanted_std(changes):
    config, networks, state, rollout = start(**changes, value__head_std=0.02)
    params = start_heads(state.critic_params, rollout, networks, config)
    values = values_of(params, rollout, networks, config)
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    mean = masked_mean(jnp.broadcast_to(rollout.rewards[:, None], mask.shape), mask)
    for k in range(2):
        assert masked_mean(values[k], mask) == pytest.approx(float(mean), abs=0.01)
        assert np.sqrt(masked_variance(values[k], mask)) == pytest.approx(0.02, rel=0.1)
    assert np.abs(values[0] - values[1]).max() > 0.01  # the heads keep their directions


@pytest.mark.parametrize("name", ["linear", "atan", "sigmoid and bce"])
def test_with_an_anchor_heads_start_near_it_and_right_on_average(name):
    config, networks, state, rollout = start(value__anchor="shrunken_group", **HEADS[name])
    params = start_heads(state.critic_params, rollout, networks, config)
    values = values_of(params, rollout, networks, config)
    anchor = value_anchor(rollout, config.sampling.group_size, "shrunken_group")
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    assert anchor is not None
    rewards, anchors = (jnp.broadcast_to(x[:, None], mask.shape) for x in (rollout.rewards, anchor))
    mean = jnp.mean(values, axis=0)
    assert masked_mean(mean, mask) == pytest.approx(float(masked_mean(rewards, mask)), abs=0.02)
    offset = masked_mean(rewards - anchors, mask)
    residual = mean - anchors - offset
    assert np.sqrt(masked_mean(jnp.square(residual), mask)) < 0.05
