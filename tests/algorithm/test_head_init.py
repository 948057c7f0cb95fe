"""Value heads after the first rollout: the mean reward, and the wanted spread."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.forward import ensemble_outputs, value_anchor
from asyppo_jax.algorithm.head_init import init_heads_from_rollout
from asyppo_jax.ops.masked import masked_mean, masked_variance
from asyppo_jax.ops.value_losses import two_hot
from tests.algorithm.test_value_options import HEADS, start, start_heads, values_of
from tests.tiny import make_config, with_one_prompt_a_group


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


LAYOUTS = {
    "plain": {},
    "packed": {"batching__packing": True},
    "packed, shared prompts": {"batching__packing": True, "batching__rows_per_prompt": 4},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_heads_of_bins_are_those_of_the_outputs_of_all_tokens(layout):
    """The statistics against NumPy in float64, from all outputs at the same time."""
    config, networks, state, rollout = start(**HEADS["two_hot"], **layout)
    rollout = with_one_prompt_a_group(rollout, config)
    params = start_heads(state.critic_params, rollout, networks, config)
    plain = make_config(2, **HEADS["two_hot"])
    outputs = jax.jit(lambda p: ensemble_outputs(p, rollout, networks, plain))(state.critic_params)
    kernel, bias = (
        np.asarray(state.critic_params[f"value_{x}"], np.float64) for x in ("kernel", "bias")
    )
    mask = np.asarray(rollout.completion_mask & rollout.reward_valid[:, None])
    targets = np.float64(two_hot(rollout.rewards, networks.value_head))
    start_at = np.log(np.repeat(targets, mask.sum(axis=1), axis=0).mean(axis=0) + 1e-4)
    chances = np.exp(start_at) / np.exp(start_at).sum()
    centers = np.float64(networks.value_head.centers)
    slope = chances * (centers - chances @ centers)  # the gradient of a softmax's mean
    for k in range(2):
        raw = (np.asarray(outputs[k], np.float64) - bias[k])[mask]  # [tokens, M]
        scale = config.value.head_std / (raw @ slope).std()
        np.testing.assert_allclose(params["value_kernel"][k], scale * kernel[k], rtol=1e-4)
        expected = start_at - scale * raw.mean(axis=0)
        np.testing.assert_allclose(params["value_bias"][k], expected, rtol=1e-4, atol=1e-4)


def test_the_outputs_of_all_bins_are_in_memory_for_one_microbatch_at_a_time():
    config, networks, state, rollout = start(**HEADS["two_hot"])
    function = jax.jit(lambda p, r: init_heads_from_rollout(p, r, networks, config))
    program = function.lower(state.critic_params, rollout).as_text()
    shapes = re.findall(r"tensor<((?:\d+x)+)f32>", program)
    sizes = [[int(n) for n in shape.split("x")[:-1]] for shape in shapes]
    of_bins = [np.prod(size) for size in sizes if {9, 21} <= set(size)]  # C and M
    assert max(of_bins) == 2 * 8 * 9 * 21  # K, microbatch, C, M
