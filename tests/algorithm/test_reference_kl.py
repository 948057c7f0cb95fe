"""KL to the reference: the term of the loss, the reference's log-probs, and the step with it."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.actor_update import actor_loss
from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.rows import update_rows
from asyppo_jax.algorithm.policy_losses import asyppo
from asyppo_jax.algorithm.train_step import score_by_reference, train_step
from asyppo_jax.config import ConfigError
from tests.tiny import (
    PROMPT,
    assert_trees_close,
    jit_step,
    make_actor_params,
    make_config,
    make_networks,
    make_rollout,
    make_state,
    with_one_prompt_a_group,
)

LAYOUTS = pytest.mark.parametrize(
    "layout",
    [
        {},
        pytest.param({"packing": True}, marks=pytest.mark.slow),
        pytest.param({"rows_per_prompt": 4}, marks=pytest.mark.slow),
        {"rows_per_prompt": 4, "packing": True},
    ],
    ids=str,
)
ONE_UPDATE = {"algorithm__actor_epochs": 1, "batching__actor_minibatch_size": 32}


def _with(config, layout, **algorithm):
    return replace(
        config,
        batching=replace(config.batching, **layout),
        algorithm=replace(config.algorithm, **algorithm),
    )


def _log_probs(params, rollout, networks):
    """log π of the completions, from full logits."""
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    log_p = jax.nn.log_softmax(networks.actor_logits(params, rollout.tokens, mask))
    tokens = rollout.tokens[:, PROMPT:, None]
    return jnp.take_along_axis(log_p[:, PROMPT - 1 : -1], tokens, axis=-1)[..., 0]


@LAYOUTS
def test_the_log_probs_of_the_reference_are_those_of_its_logits(setting, layout):
    config, networks, _, experience = setting
    reference, config = make_actor_params(networks), _with(config, layout)
    score = jax.jit(partial(score_by_reference, networks=networks, config=config))
    expected = jax.jit(partial(_log_probs, networks=networks))(reference, experience.rollout)
    real = np.asarray(experience.loss_mask)
    result = np.asarray(score(reference, experience))
    np.testing.assert_allclose(result[real], np.asarray(expected)[real], rtol=1e-5, atol=1e-5)


@LAYOUTS
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_kl_adds_its_mean_per_sequence_to_the_loss_and_to_the_gradient(
    setting, layout, estimator
):
    config, networks, state, experience = setting
    kl_coef, real = 0.5, experience.loss_mask
    noise = jnp.asarray(np.random.default_rng(0).normal(-4.0, 0.2, real.shape), jnp.float32)
    experience = experience.replace(reference_log_probs=noise)
    count = jnp.sum(jnp.any(real, axis=1)).astype(jnp.float32)

    def loss(params, kl_coef):
        changed = _with(config, layout, kl_coef=kl_coef, kl_estimator=estimator)
        rows = update_rows(experience, "sequence")
        rows, _, _ = lay_out(rows, changed.batching, changed.sampling.group_size)
        return actor_loss(params, rows, count, networks, changed, asyppo)[0]

    def formula(params):
        d = _log_probs(params, experience.rollout, networks) - noise
        kl = jnp.exp(-d) - 1 + d if estimator == "k3" else d**2 / 2
        per_token = jnp.where(real, kl, 0) / jnp.maximum(jnp.sum(real, axis=1, keepdims=True), 1)
        return kl_coef * jnp.sum(per_token) / count

    def ours(params):
        return loss(params, kl_coef) - loss(params, 0.0)

    value, gradient = jax.jit(jax.value_and_grad(ours))(state.actor_params)
    expected, expected_gradient = jax.jit(jax.value_and_grad(formula))(state.actor_params)
    assert expected > 0.01
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        gradient,
        expected_gradient,
    )


def test_without_kl_the_program_is_the_same_and_has_no_argument_more():
    networks = make_networks(0)

    def program(**changes):
        config = make_config(0, **changes)
        step = jax.jit(partial(train_step, networks=networks, config=config))
        return step.lower(make_state(make_config(0), networks), make_rollout(config))

    default, other = program(), program(algorithm__kl_estimator="k1")
    assert default.as_text() == other.as_text()
    assert "actor/kl_to_reference" not in default.out_info[1]


def test_a_step_with_kl_needs_a_reference():
    config, networks = make_config(0, algorithm__kl_coef=0.1), make_networks(0)
    with pytest.raises(ConfigError, match=r"kl_coef is 0\.1, which needs a reference; give the"):
        jit_step(config, networks)(make_state(config, networks), make_rollout(config))


@pytest.mark.parametrize("packing", [False, True])
def test_while_the_actor_is_the_reference_the_kl_is_zero_to_rounding(packing):
    """The gradient of k3 is then 0 as well, so the update is the one without KL."""
    networks = make_networks(0)
    changes = {"actor_optimizer__eps": 1e-3, "batching__packing": packing} | ONE_UPDATE

    def run(**more):
        config = make_config(0, **changes, **more)
        state = make_state(config, networks)
        reference = {"reference_params": state.actor_params} if more else {}
        return jit_step(config, networks)(state, make_rollout(config), **reference)

    (plain, _), (state, metrics) = run(), run(algorithm__kl_coef=1.0)
    assert 0 <= metrics["actor/kl_to_reference"] < 1e-10
    assert_trees_close(plain.actor_params, state.actor_params, atol=1e-7)


def test_the_kl_pulls_the_actor_to_the_reference():
    """With one answer per group there is no advantage, so the KL alone has a gradient."""
    networks = make_networks(0)
    options = {"algorithm__kl_coef": 1.0, "algorithm__entropy_coef": 0.0}
    sizes = {"sampling__num_prompts": 32, "sampling__group_size": 1}
    config = make_config(0, **options, **sizes, **ONE_UPDATE)
    state, rollout, kl = make_state(config, networks), make_rollout(config), []
    for _ in range(4):
        step = jit_step(config, networks)
        state, metrics = step(state, rollout, reference_params=make_actor_params(networks, seed=1))
        kl.append(float(metrics["actor/kl_to_reference"]))
    assert kl[0] > kl[1] > kl[2] > kl[3] > 0


@pytest.mark.slow  # a quick test above shows it for the loss and for the reference's log-probs
@pytest.mark.parametrize("layout", [{"packing": True}, {"packing": True, "rows_per_prompt": 2}])
def test_packing_changes_no_number_of_two_steps_with_kl(layout):
    networks, results = make_networks(0), []
    for fields in ({}, layout):
        changes = {f"batching__{name}": value for name, value in fields.items()}
        changes |= {"algorithm__kl_coef": 0.5, "actor_optimizer__eps": 1e-3} | ONE_UPDATE
        config = make_config(0, **changes)
        state, step = make_state(config, networks), jit_step(config, networks)
        reference = {"reference_params": make_actor_params(networks, seed=1)}
        first, second = (
            with_one_prompt_a_group(make_rollout(config, seed), config) for seed in (0, 1)
        )
        state, _ = step(state, first, **reference)
        results.append(step(state, second, **reference))
    (whole, metrics), (packed, others) = results
    assert_trees_close(whole.actor_params, packed.actor_params, atol=1e-5)
    assert_trees_close(metrics, others, atol=1e-5)
