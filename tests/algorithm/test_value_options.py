"""The options of `config.value` in the step: what each changes, and that layouts agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.advantages import critic_targets, discounted_rewards, gae_advantages
from asyppo_jax.algorithm.critic_update import critic_rows, value_loss
from asyppo_jax.algorithm.experience import gated_values, make_experience
from asyppo_jax.algorithm.forward import ensemble_values
from asyppo_jax.algorithm.head_init import init_heads_from_rollout
from asyppo_jax.algorithm.train_step import score_rollout
from asyppo_jax.config import AlgorithmConfig, ConfigError
from asyppo_jax.models.pretrained import value_head
from asyppo_jax.ops.masked import masked_mean
from tests.tiny import (
    jit_step,
    make_config,
    make_networks,
    make_rollout,
    make_state,
    with_one_prompt_a_group,
)

HEADS = {
    "linear": {},
    "atan": {"value__head": "atan"},
    "sigmoid and bce": {"value__head": "sigmoid", "value__loss": "bce"},
    "two_hot": {"value__head": "bins", "value__loss": "two_hot", "value__bins": 21},
    "hl_gauss": {"value__head": "bins", "value__loss": "hl_gauss", "value__bins": 21},
}


def networks_of(config):
    networks = make_networks(config.algorithm.num_critics)
    assert networks.critic is not None
    critic = networks.critic.clone(head=value_head(config.value))
    return dataclasses.replace(networks, critic=critic)


def start(**changes):
    config = make_config(2, **changes)
    networks = networks_of(config)
    return config, networks, make_state(config, networks), make_rollout(config)


def values_of(params, rollout, networks, config):
    compute = jax.jit(lambda p, r: ensemble_values(p, r, networks, config))
    return compute(params, rollout)


def start_heads(params, rollout, networks, config):
    return jax.jit(lambda p, r: init_heads_from_rollout(p, r, networks, config))(params, rollout)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, marks=() if name in ("linear", "hl_gauss") else pytest.mark.slow)
        for name, changes in HEADS.items()
    ],
    ids=HEADS,
)
def test_every_head_and_loss_learns_the_rewards_of_one_rollout(changes):
    config, networks, state, rollout = start(**changes, critic_optimizer__learning_rate=3e-3)
    params = start_heads(state.critic_params, rollout, networks, config)
    state, step = state.replace(critic_params=params), jit_step(config, networks)
    mask = rollout.completion_mask & rollout.reward_valid[:, None]

    def error(params):
        values = values_of(params, rollout, networks, config)
        return float(masked_mean(jnp.square(jnp.mean(values, 0) - rollout.rewards[:, None]), mask))

    before = error(params)
    for _ in range(12):
        state, metrics = step(state, rollout)
        assert np.isfinite(metrics["critic/loss"])
    assert error(state.critic_params) < 0.8 * before


LAYOUTS = {
    "packed": pytest.param({"batching__packing": True}, marks=pytest.mark.slow),
    "shared prompts": {"batching__rows_per_prompt": 4, "batching__critic_minibatch_size": 32},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_options_give_the_same_update_in_every_layout(layout):
    """All options at once: an anchor, weights, old values, sparse positions, frozen attention."""
    options = {
        "value__anchor": "shrunken_group",
        "value__clip_eps": 0.05,
        "value__noise_weights": True,
        "value__positions": (0.3, 0.6, 0.9),
        "value__frozen": "attention",
        "batching__actor_minibatch_size": 32,
        "batching__critic_minibatch_size": 32,
        "algorithm__critic_epochs": 2,
    }
    config, networks, state, rollout = start(**options)
    rollout = with_one_prompt_a_group(rollout, config)
    other = start(**(options | layout))[0]
    plain, _ = jit_step(config, networks)(state, rollout)
    laid_out, _ = jit_step(other, networks)(state, rollout)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        plain.critic_params,
        laid_out.critic_params,
    )


def test_frozen_attention_does_not_move_and_the_rest_does():
    config, networks, state, rollout = start(
        value__frozen="attention", critic_optimizer__weight_decay=0.1
    )
    after, _ = jit_step(config, networks)(state, rollout)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.critic_params):
        new = after.critic_params
        for key in path:
            new = new[key.key]
        is_frozen = any(key.key == "attention" for key in path)
        assert (np.asarray(leaf) == np.asarray(new)).all() == is_frozen, path


def test_rows_that_critics_fit_have_the_positions_and_weights_of_the_config():
    config, networks, state, rollout = start(
        value__positions=(0.5,), value__noise_weights=True, value__anchor="group"
    )
    experience, _ = score_rollout(
        state.critic_params, state.key, state.step, rollout, networks=networks, config=config
    )
    head = value_head(config.value)
    rows = critic_rows(experience, head, config, dense=False)
    np.testing.assert_array_equal(rows.mask.sum(axis=1), experience.loss_mask.any(axis=1))
    dense = critic_rows(experience, head, config, dense=True)
    np.testing.assert_array_equal(dense.mask, experience.loss_mask)
    outputs = jnp.zeros_like(rows.returns)
    per_token = value_loss(outputs, rows, head, config.value)
    assert rows.value_weights is not None
    expected = rows.value_weights * jnp.square(rows.returns)
    np.testing.assert_allclose(per_token, expected, rtol=1e-6)


def advantages_and_targets(**settings):
    """Of random values, by these settings of the algorithm."""
    config = AlgorithmConfig(**settings)
    rollout = make_rollout(make_config(2))
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    values = jax.random.uniform(jax.random.key(1), mask.shape)
    advantages = gae_advantages(rollout, values, mask, 8, config)
    return advantages, critic_targets(rollout, values, mask, config), (rollout, mask)


def test_the_critics_lambda_is_apart_from_the_actors():
    settings = {"gae_lambda": 0.95, "returns_lambda": 1.0}
    advantages, targets, (rollout, mask) = advantages_and_targets(**settings)
    returns = discounted_rewards(rollout, mask, AlgorithmConfig())
    np.testing.assert_allclose(targets, returns, atol=1e-5)
    np.testing.assert_array_equal(advantages, advantages_and_targets(gae_lambda=0.95)[0])
    assert np.abs(advantages - advantages_and_targets()[0]).max() > 0


def test_length_adaptive_lambda_gives_each_answer_its_own():
    alpha = 0.4
    adaptive, targets, (_, mask) = advantages_and_targets(length_adaptive_lambda=alpha)
    for row in range(8):
        gae_lambda = max(0.0, 1 - 1 / (alpha * max(int(mask[row].sum()), 1)))
        one = advantages_and_targets(gae_lambda=gae_lambda)[0]
        np.testing.assert_allclose(adaptive[row], one[row], atol=1e-6)
    np.testing.assert_array_equal(targets, advantages_and_targets()[1])  # the actor's λ alone


@pytest.mark.parametrize("good", [True, False])
def test_the_gate_takes_the_values_only_while_they_explain_the_returns(good):
    config = make_config(2)
    rollout = make_rollout(config)
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    returns = discounted_rewards(rollout, mask, config.algorithm)
    values = returns if good else -returns
    baseline = gated_values(rollout, values, mask, 8, config.algorithm)
    if good:
        np.testing.assert_array_equal(baseline, values)
    else:
        rewards = np.where(rollout.reward_valid, rollout.rewards, 0.0)
        others = (rewards[8:16].sum() - rewards[8]) / 7
        np.testing.assert_allclose(baseline[8][mask[8]], others, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"value__anchor": "shrunken_group"},
        {"value__anchor": "group", "value__head": "sigmoid", "value__loss": "bce"},
        pytest.param({"value__clip_eps": 1e-3}, marks=pytest.mark.slow),
        pytest.param({"value__noise_weights": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_update_minimises_the_loss_of_the_values_in_the_experience(changes):
    """At learning rate 0 `critic/loss` is the loss of these values, by hand, over all answers."""
    config, networks, state, rollout = start(**changes, critic_optimizer__learning_rate=0.0)
    rollout = rollout.replace(reward_valid=jnp.ones_like(rollout.reward_valid))
    experience, _ = score_rollout(
        state.critic_params, state.key, state.step, rollout, networks=networks, config=config
    )
    _, metrics = jit_step(config, networks)(state, rollout)
    values, returns = np.asarray(experience.values), np.asarray(experience.returns)
    if config.value.loss == "bce":
        per_token = -returns * np.log(values) - (1 - returns) * np.log1p(-values)
    else:
        per_token = (values - returns) ** 2  # the clip changes nothing where V = V_old
    if config.value.noise_weights:
        rewards = np.asarray(rollout.rewards).reshape(-1, 8)
        weights = 1 / np.maximum(rewards.std(axis=1), 0.5 / np.sqrt(8))
        per_token = per_token * np.repeat(weights / weights.mean(), 8)[None, :, None]
    # The means of minibatches of different token counts: equal to the mean over all up to that.
    mask = np.asarray(experience.loss_mask)
    of_critics = [
        per_token[k][mask & np.asarray(experience.critic_shards)[k][:, None]].mean()
        for k in range(2)
    ]
    assert metrics["critic/loss"] == pytest.approx(np.mean(of_critics), rel=0.15)


def test_truncated_answers_leave_the_actors_loss_and_stay_with_the_critics():
    config, networks, state, rollout = start(algorithm__overlong_filter=True)
    values = jnp.zeros((2, *rollout.completion_mask.shape))
    with pytest.raises(ConfigError, match="does not say which answers are truncated; set its"):
        unknown = rollout.replace(truncated=None)
        make_experience(unknown, values, state.key, group_size=8, config=config.algorithm)
    truncated = jnp.arange(len(rollout.rewards)) % 4 == 0
    experience, _ = score_rollout(
        state.critic_params,
        state.key,
        state.step,
        rollout.replace(truncated=truncated),
        networks=networks,
        config=config,
    )
    np.testing.assert_array_equal(experience.actor_mask, experience.loss_mask & ~truncated[:, None])
    rows = critic_rows(experience, value_head(config.value), config, dense=True)
    np.testing.assert_array_equal(rows.mask, experience.loss_mask)
