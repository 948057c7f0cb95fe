"""VAPO's language-model loss on right answers, against full logits and NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asyppo_jax.algorithm.actor_update import positive_tokens, update_actor
from asyppo_jax.algorithm.batching.microbatches import actor_minibatches
from tests.tiny import PROMPT, assert_trees_close, make_config

COEF = 0.1


def _no_policy_loss(log_probs, entropy, rows, config):
    return 0.0 * log_probs


def _positive_by_hand(experience):
    """[B, C], read off sequence by sequence."""
    rollout = experience.rollout
    positive = np.zeros(rollout.completion_mask.shape, bool)
    for row, (reward, valid) in enumerate(zip(rollout.rewards, rollout.reward_valid, strict=True)):
        if valid and reward == 1:
            positive[row] = rollout.completion_mask[row]
    return positive


def _log_probs(params, experience, networks):
    """log π of the completions' tokens [B, C], from full logits."""
    rollout = experience.rollout
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    log_p = jax.nn.log_softmax(networks.actor_logits(params, rollout.tokens, mask))
    chosen = rollout.tokens[:, PROMPT:, None]
    return jnp.take_along_axis(log_p[:, PROMPT - 1 : -1], chosen, axis=-1)[..., 0]


def _update(setting, policy_loss=_no_policy_loss, experience=None, **changes):
    _, networks, state, given = setting
    changes = {"batching__actor_minibatch_size": 32, "algorithm__actor_epochs": 1} | changes
    config = make_config(**changes)
    update = functools.partial(
        update_actor, networks=networks, config=config, policy_loss=policy_loss
    )
    key, state_of_actor = jax.random.key(3), (state.actor_params, state.actor_opt_state)
    return jax.jit(update)(*state_of_actor, given if experience is None else experience, key)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        pytest.param({"batching__packing": True}, marks=pytest.mark.slow),
        pytest.param(
            {"batching__packing": True, "batching__rows_per_prompt": 4}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("aggregation", ["sequence", "token"])
def test_loss_and_gradient_are_the_mean_over_tokens_of_right_answers(setting, layout, aggregation):
    _, networks, state, experience = setting
    positive = _positive_by_hand(experience)
    assert 0 < positive.sum() < np.asarray(experience.loss_mask).sum()

    @jax.jit
    @jax.value_and_grad
    def nll(params):
        log_probs = _log_probs(params, experience, networks)
        return -jnp.sum(jnp.where(positive, log_probs, 0.0)) / positive.sum()

    expected, gradient = nll(state.actor_params)
    options = {"algorithm__positive_nll_coef": COEF, "algorithm__loss_aggregation": aggregation}
    _, _, metrics = _update(setting, **options, **layout)
    np.testing.assert_allclose(metrics["actor/positive_nll"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["actor/loss"], COEF * expected, rtol=1e-5)
    norm = COEF * optax.tree.norm(gradient)
    np.testing.assert_allclose(metrics["actor/grad_norm"], norm, rtol=1e-4)


def test_packed_rows_give_the_same_parameters(setting):
    options = {"algorithm__positive_nll_coef": 1.0, "actor_optimizer__eps": 1e-3}
    options |= {"batching__actor_minibatch_size": 16}
    plain, _, metrics = _update(setting, **options)
    packed, _, packed_metrics = _update(setting, batching__packing=True, **options)
    assert_trees_close(plain, packed, atol=2e-6)
    for name in [name for name in metrics if name.startswith("actor/")]:
        np.testing.assert_allclose(packed_metrics[name], metrics[name], rtol=1e-4, atol=1e-6)


def test_each_minibatch_has_its_own_mean_and_those_without_right_answers_have_none(setting):
    _, networks, state, experience = setting
    rewards = jnp.zeros(32).at[jnp.array([2, 9])].set(1.0)
    experience = experience.replace(rollout=experience.rollout.replace(rewards=rewards))
    options = {"batching__actor_minibatch_size": 8, "actor_optimizer__learning_rate": 0.0}
    _, _, metrics = _update(
        setting, experience=experience, algorithm__positive_nll_coef=COEF, **options
    )
    log_probs = np.asarray(_log_probs(state.actor_params, experience, networks))
    positive = _positive_by_hand(experience)
    minibatches = actor_minibatches(jax.random.key(3), 32, epochs=1, minibatch=8)
    means = [
        -log_probs[rows][positive[rows]].mean() if positive[rows].any() else None
        for rows in np.asarray(minibatches)
    ]
    some = [mean for mean in means if mean is not None]
    assert 0 < len(some) < len(means)
    np.testing.assert_allclose(metrics["actor/positive_nll"], np.mean(some), rtol=1e-5)
    loss = COEF * np.sum(some) / len(means)
    np.testing.assert_allclose(metrics["actor/loss"], loss, rtol=1e-5)


def test_it_is_added_to_the_policy_loss_and_masks_do_not_apply(setting):
    def surrogate(log_probs, entropy, rows, config):
        return -rows.advantages * log_probs * rows.advantage_mask

    _, _, _, experience = setting
    nothing = experience.replace(advantage_mask=jnp.zeros_like(experience.advantage_mask))
    options = {"algorithm__positive_nll_coef": COEF, "actor_optimizer__learning_rate": 0.0}
    _, _, both = _update(setting, surrogate, **options)
    _, _, alone = _update(setting, surrogate, experience=nothing, **options)
    _, _, policy = _update(setting, surrogate, actor_optimizer__learning_rate=0.0)
    assert "actor/positive_nll" not in policy
    np.testing.assert_allclose(alone["actor/loss"], COEF * alone["actor/positive_nll"], rtol=1e-5)
    np.testing.assert_allclose(
        both["actor/loss"], policy["actor/loss"] + alone["actor/loss"], rtol=1e-5, atol=1e-6
    )


def test_right_answers_have_the_highest_reward_and_are_in_the_actors_loss():
    rewards = jnp.array([1.0, 0.99, 0.0, 1.0, 1.0 - 2**-24])  # the last: a rounded mean of ones
    mask = jnp.array([[True, True], [True, True], [True, False], [False, False], [True, False]])
    expected = [[True, True], [False, False], [False, False], [False, False], [True, False]]
    np.testing.assert_array_equal(positive_tokens(rewards, mask), expected)
