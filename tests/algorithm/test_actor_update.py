"""The updates' losses against plain autodiff of the formulas, in whole rows and in packed ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asyppo_jax.algorithm.actor_update import actor_loss
from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.rows import update_rows
from asyppo_jax.algorithm.policy_losses import asyppo
from tests.tiny import (
    PROMPT,
)


def _paper_loss(params, experience, networks, config):
    """−J of the paper, written from full logits, sequence by sequence."""
    rollout, a = experience.rollout, config.algorithm
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    log_p = jax.nn.log_softmax(networks.actor_logits(params, rollout.tokens, mask))
    log_p = log_p[:, PROMPT - 1 : -1]
    chosen = jnp.take_along_axis(log_p, rollout.tokens[:, PROMPT:, None], axis=-1)[..., 0]
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    ratio = jnp.exp(chosen - rollout.log_probs)
    clipped = jnp.clip(ratio, 1 - a.clip_eps_low, 1 + a.clip_eps_high)
    surrogate = jnp.minimum(ratio * experience.advantages, clipped * experience.advantages)
    total, count = 0.0, 0
    for row in range(rollout.tokens.shape[0]):
        real = np.asarray(experience.loss_mask)[row]
        if not real.any():
            continue
        term = surrogate[row] * experience.advantage_mask[row]
        term += a.entropy_coef * entropy[row] * experience.entropy_mask[row]
        total += jnp.sum(jnp.where(real, term, 0.0)) / real.sum()
        count += 1
    return -total / count


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"packing": True},
        pytest.param({"rows_per_prompt": 4}, marks=pytest.mark.slow),
        {"rows_per_prompt": 4, "packing": True},
    ],
    ids=str,
)
def test_the_actors_loss_and_gradient_are_those_of_the_papers_formula(setting, layout):
    config, networks, state, experience = setting
    rows = update_rows(experience, "sequence")
    count = jnp.sum(jnp.any(rows.mask, axis=-1)).astype(jnp.float32)
    config = replace(config, batching=replace(config.batching, **layout))
    group = config.sampling.group_size
    rows = jax.jit(lambda x: lay_out(x, config.batching, group)[0])(rows)

    def ours(params):
        return actor_loss(params, rows, count, networks, config, asyppo)[0]

    def papers(params):
        return _paper_loss(params, experience, networks, config)

    loss, gradient = jax.jit(jax.value_and_grad(ours))(state.actor_params)
    expected, expected_gradient = jax.jit(jax.value_and_grad(papers))(state.actor_params)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6),
        gradient,
        expected_gradient,
    )


def test_a_dropped_token_has_no_surrogate_gradient_and_keeps_its_entropy_gradient(setting):
    config, networks, state, experience = setting
    rows = update_rows(experience, "sequence")
    nothing = jnp.zeros_like(rows.advantage_mask)

    @jax.jit
    def gradient_norm(rows):
        def loss(params):
            return actor_loss(params, rows, jnp.float32(1), networks, config, asyppo)[0]

        return optax.tree.norm(jax.grad(loss)(state.actor_params))

    assert gradient_norm(rows.replace(advantage_mask=nothing, entropy_mask=nothing)) == 0
    assert gradient_norm(rows.replace(advantage_mask=nothing)) > 0
    assert gradient_norm(rows.replace(entropy_mask=nothing)) > 0
