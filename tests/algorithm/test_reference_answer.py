"""Critics that read the reference answer before the prompt, which the actor does not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.forward import ensemble_values, frozen_log_probs
from asyppo_jax.algorithm.head_init import init_heads_from_rollout
from asyppo_jax.algorithm.train_step import score_rollout, step_critics
from asyppo_jax.config import ConfigError
from tests.tiny import (
    PROMPT,
    VOCABULARY,
    jit_step,
    make_config,
    make_networks,
    make_rollout,
    make_state,
    with_one_prompt_a_group,
)

REFERENCE = 4
ON = {"value__reference_answer": "{answer}\n", "value__reference_max_length": REFERENCE}


def start(seed=0, **changes):
    """A setting whose rollout has references of 1 to 4 tokens, one per prompt."""
    config, networks = make_config(2, **(ON | changes)), make_networks()
    rollout = with_one_prompt_a_group(make_rollout(config), config)
    rollout = with_references(rollout, config.sampling.group_size, seed)
    return config, networks, make_state(config, networks), rollout


def with_references(rollout, group_size, seed=0):
    rng, batch = np.random.default_rng(seed), len(rollout.tokens)
    tokens = np.zeros((batch, REFERENCE + PROMPT), np.int32)
    mask = np.zeros((batch, REFERENCE + PROMPT), bool)
    lengths = rng.integers(1, REFERENCE + 1, batch // group_size)
    references = [rng.integers(0, VOCABULARY, length) for length in lengths]
    for row in range(batch):
        reference = references[row // group_size]
        real = np.asarray(rollout.tokens)[row, :PROMPT][np.asarray(rollout.prompt_mask)[row]]
        joined = [*reference, *real]
        tokens[row, -len(joined) :], mask[row, -len(joined) :] = joined, True
    return rollout.replace(critic_prompt=jnp.asarray(tokens), critic_prompt_mask=jnp.asarray(mask))


def values_of(state, rollout, networks, config):
    compute = jax.jit(lambda p, r: ensemble_values(p, r, networks, config))
    values = np.asarray(compute(state.critic_params, rollout))
    return np.where(rollout.completion_mask, values, 0)


def test_values_are_those_of_one_text_that_begins_with_the_reference():
    """Each sequence alone, without padding: reference, prompt and completion at 0, 1, 2, …"""
    config, networks, state, rollout = start()
    values = values_of(state, rollout, networks, config)
    critic_prompts, masks, completions = (
        np.asarray(x)
        for x in (rollout.critic_prompt, rollout.critic_prompt_mask, rollout.completion_mask)
    )
    at = jax.jit(networks.critic_values)
    for row in (0, 9, 31):
        prompt, length = critic_prompts[row][masks[row]], completions[row].sum()
        text = np.concatenate([prompt, np.asarray(rollout.tokens)[row, PROMPT:][:length]])
        for k in range(2):
            one = jax.tree.map(lambda x, k=k: x[k], state.critic_params)
            alone = at(one, text[None], np.ones((1, len(text)), bool))[0, len(prompt) - 1 : -1]
            np.testing.assert_allclose(values[k, row, :length], alone, atol=1e-5)


def test_a_reference_is_the_same_as_a_longer_prompt():
    """The critics' update too, to the bit: with the option off and the reference in the prompt."""
    config, networks, state, rollout = start()
    off = make_config(2)
    critic_prompt = jnp.asarray(rollout.critic_prompt)
    longer = rollout.replace(
        tokens=jnp.concatenate([critic_prompt, rollout.tokens[:, PROMPT:]], axis=1),
        prompt_mask=rollout.critic_prompt_mask,
        critic_prompt=None,
        critic_prompt_mask=None,
    )

    def learn(rollout, config):
        @jax.jit
        def update(state, rollout):
            clock, static = (state.key, state.step), {"networks": networks, "config": config}
            experience, _ = score_rollout(state.critic_params, *clock, rollout, **static)
            params, opt_state = state.critic_params, state.critic_opt_state
            return step_critics(params, opt_state, *clock, experience, **static)[0]

        return update(state, rollout)

    jax.tree.map(np.testing.assert_array_equal, learn(rollout, config), learn(longer, off))


def test_the_reference_changes_values_and_not_what_the_actor_computes():
    config, networks, state, rollout = start()
    other = with_references(rollout, config.sampling.group_size, seed=1)
    left, right = (values_of(state, r, networks, config) for r in (rollout, other))
    changed = (left != right)[:, np.asarray(rollout.completion_mask)]
    assert changed.mean() > 0.9

    @jax.jit
    def log_probs(params, rollout):
        rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
        return frozen_log_probs(params, rows, networks, config)

    plain = make_rollout(config).replace(tokens=rollout.tokens, prompt_mask=rollout.prompt_mask)
    for other_rollout in (other, plain):
        np.testing.assert_array_equal(
            log_probs(state.actor_params, rollout), log_probs(state.actor_params, other_rollout)
        )


def test_without_the_option_references_in_a_rollout_change_nothing():
    config, networks, state, rollout = start()
    off = make_config(2)
    plain = rollout.replace(critic_prompt=None, critic_prompt_mask=None)
    left, right = (jit_step(off, networks)(state, r) for r in (rollout, plain))
    jax.tree.map(np.testing.assert_array_equal, left, right)
    on = jit_step(config, networks)(state, rollout)
    assert on[1]["critic/value_mean"] != left[1]["critic/value_mean"]
    assert on[1]["rollout/log_prob_gap"] == left[1]["rollout/log_prob_gap"]


LAYOUTS = {
    "packed": pytest.param({"batching__packing": True}, marks=pytest.mark.slow),
    "shared prompts": pytest.param({"batching__rows_per_prompt": 4}, marks=pytest.mark.slow),
    "packed behind shared prompts": {"batching__packing": True, "batching__rows_per_prompt": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_values_and_update(layout):
    # Complete groups in a minibatch, so that all layouts have the same ones.
    same = {"batching__actor_minibatch_size": 32, "batching__critic_minibatch_size": 32}
    config, networks, state, rollout = start(**same)
    laid_out = start(**same, **layout)[0]
    np.testing.assert_allclose(
        values_of(state, rollout, networks, config),
        values_of(state, rollout, networks, laid_out),
        atol=1e-5,
    )
    left, right = (jit_step(c, networks)(state, rollout) for c in (config, laid_out))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        (left[0].critic_params, left[0].actor_params),
        (right[0].critic_params, right[0].actor_params),
    )


def test_heads_from_the_rollout_start_at_the_mean_reward_of_what_critics_read():
    config, networks, state, rollout = start(value__head_init="rollout")
    make = jax.jit(lambda p, r: init_heads_from_rollout(p, r, networks, config))
    state = state.replace(critic_params=make(state.critic_params, rollout))
    values = values_of(state, rollout, networks, config)
    mask = np.asarray(rollout.completion_mask & rollout.reward_valid[:, None])
    mean_reward = np.broadcast_to(rollout.rewards[:, None], mask.shape)[mask].mean()
    for k in range(2):
        assert values[k][mask].mean() == pytest.approx(mean_reward, abs=1e-4)
        assert values[k][mask].std() == pytest.approx(config.value.head_std, rel=1e-3)


def test_a_rollout_without_references_is_refused_in_one_sentence():
    config, networks, state, rollout = start()
    plain = rollout.replace(critic_prompt=None, critic_prompt_mask=None)
    with pytest.raises(ConfigError, match=r"critics read reference answers .* has none; sample"):
        jit_step(config, networks)(state, plain)
