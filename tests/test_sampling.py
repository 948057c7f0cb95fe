"""The decoding loop: its log-probs, its noise, its ends, its truncations."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.sampling import DecodingOptions, draw, inverse_cdf, sample, truncate
from asyppo_jax.types import PromptBatch
from tests.tiny import PROMPT, VOCABULARY, jit_logits, make_actor_params, make_networks

OPTIONS = DecodingOptions(
    group_size=4,
    max_completion_length=8,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    stop_ids=(7, 11),
    pad_id=0,
)
NETWORKS = make_networks(0)


@pytest.fixture(scope="module")
def params():
    return make_actor_params(NETWORKS)


@pytest.fixture(scope="module")
def prompts():
    tokens = jax.random.randint(jax.random.key(3), (3, PROMPT), 0, VOCABULARY)
    mask = jnp.arange(PROMPT)[None] >= jnp.array([[0], [2], [4]])
    return PromptBatch(tokens=tokens, mask=mask)


@pytest.fixture(scope="module")
def sampler():
    return jax.jit(partial(sample, networks=NETWORKS), static_argnames="options")


def _teacher_forced(params, rollout):
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    logits = jit_logits(NETWORKS)(params, rollout.tokens, mask)[:, PROMPT - 1 : -1]
    chosen = rollout.tokens[:, PROMPT:, None]
    return jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[..., 0]


def test_fewer_slots_than_rows_change_no_token(params, prompts, sampler):
    together = sampler(params, prompts, jax.random.key(0), options=OPTIONS)
    in_turn = sampler(params, prompts, jax.random.key(0), options=replace(OPTIONS, slots=4))
    np.testing.assert_array_equal(together.tokens, in_turn.tokens)
    np.testing.assert_array_equal(together.completion_mask, in_turn.completion_mask)
    np.testing.assert_allclose(together.log_probs, in_turn.log_probs, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.7}, {"top_k": 5, "top_p": 0.8}, {"temperature": 0.0}]
)
def test_log_probs_are_the_teacher_forced_ones_of_the_plain_policy(
    params, prompts, sampler, changes
):
    rollout = sampler(params, prompts, jax.random.key(0), options=replace(OPTIONS, **changes))
    real = rollout.completion_mask
    gap = jnp.where(real, rollout.log_probs - _teacher_forced(params, rollout), 0.0)
    np.testing.assert_allclose(gap, 0.0, atol=1e-5)
    assert not jnp.any(jnp.where(real, 0.0, rollout.log_probs))


def test_a_completion_ends_with_its_first_stop_token_and_pads_after_it(params, prompts, sampler):
    ended = 0
    for seed in range(6):
        rollout = sampler(params, prompts, jax.random.key(seed), options=OPTIONS)
        completions = np.asarray(rollout.tokens)[:, PROMPT:]
        for tokens, mask in zip(completions, np.asarray(rollout.completion_mask), strict=True):
            length = mask.sum()
            assert mask[:length].all() and length >= 1
            assert not np.isin(tokens[: length - 1], OPTIONS.stop_ids).any()
            assert (tokens[length:] == OPTIONS.pad_id).all()
            if length < OPTIONS.max_completion_length:
                assert tokens[length - 1] in OPTIONS.stop_ids
                ended += 1
    assert ended > 5


def test_the_same_key_gives_the_same_tokens_and_another_key_others(params, prompts, sampler):
    first, again, other = (
        np.asarray(sampler(params, prompts, jax.random.key(k), options=OPTIONS).tokens)
        for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_responses_of_a_group_differ(params, prompts, sampler):
    rollout = sampler(params, prompts, jax.random.key(0), options=OPTIONS)
    groups = np.asarray(rollout.tokens).reshape(3, OPTIONS.group_size, -1)
    for group in groups:
        np.testing.assert_array_equal(group[:, :PROMPT], group[:1, :PROMPT].repeat(4, 0))
        assert len({tuple(row) for row in group}) > 1


def test_greedy_is_the_argmax_of_the_teacher_forced_logits(params, prompts, sampler):
    options = replace(OPTIONS, temperature=0.0, group_size=1)
    rollout = sampler(params, prompts, jax.random.key(0), options=options)
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    logits = jit_logits(NETWORKS)(params, rollout.tokens, mask)[:, PROMPT - 1 : -1]
    best = jnp.argmax(logits, axis=-1)
    real = rollout.completion_mask
    np.testing.assert_array_equal(
        jnp.where(real, best, 0), jnp.where(real, rollout.tokens[:, PROMPT:], 0)
    )


def test_the_width_of_the_padding_changes_no_token(params, prompts, sampler):
    wide = PromptBatch(
        tokens=jnp.pad(prompts.tokens, ((0, 0), (3, 0))),
        mask=jnp.pad(prompts.mask, ((0, 0), (3, 0))),
    )
    options = replace(OPTIONS, temperature=0.0)
    narrow = sampler(params, prompts, jax.random.key(0), options=options).tokens[:, PROMPT:]
    padded = sampler(params, wide, jax.random.key(0), options=options).tokens[:, PROMPT + 3 :]
    np.testing.assert_array_equal(narrow, padded)


def test_draws_follow_the_distribution():
    """Frequencies of 20,000 draws from a vocabulary of more than one block, to three deviations."""
    vocabulary, draws = 1200, 20_000
    logits = jnp.zeros(vocabulary).at[jnp.array([0, 600, 1199])].set(jnp.array([6.0, 7.0, 8.0]))
    p = jax.nn.softmax(logits)
    uniform = jax.random.uniform(jax.random.key(0), (draws,))
    rows = jnp.broadcast_to(logits, (draws, vocabulary))
    counts = np.bincount(np.asarray(jax.jit(inverse_cdf)(rows, uniform)), minlength=vocabulary)
    for token in (0, 600, 1199):
        deviation = np.sqrt(draws * p[token] * (1 - p[token]))
        assert abs(counts[token] - draws * p[token]) < 3 * deviation
    rest = np.delete(counts, [0, 600, 1199]).sum()
    expected = draws * (1 - p[jnp.array([0, 600, 1199])].sum())
    assert abs(rest - expected) < 3 * np.sqrt(expected)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-23])
def test_a_token_without_probability_is_never_drawn(uniform):
    logits = jnp.full((1, 1100), -jnp.inf).at[0, jnp.array([3, 700])].set(0.0)
    assert int(inverse_cdf(logits, jnp.array([uniform]))[0]) in (3, 700)


def test_top_k_keeps_the_k_likeliest():
    logits = jnp.array([[1.0, 4.0, 3.0, 2.0]])
    np.testing.assert_array_equal(jnp.isfinite(truncate(logits, 2, 1.0)), [[0, 1, 1, 0]])


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.79, 2), (0.81, 3), (0.96, 4)):
        assert int(jnp.isfinite(truncate(logits, 0, top_p)).sum()) == kept


def test_truncation_does_not_leak_into_the_log_prob():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    token, log_prob = draw(logits, jnp.array([0.9]), replace(OPTIONS, top_k=2))
    assert int(token[0]) == 1
    np.testing.assert_allclose(log_prob, np.log(0.3), rtol=1e-6)
