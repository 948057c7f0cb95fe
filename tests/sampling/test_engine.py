"""The decoding engine: its log-probs, its noise, its ends, its slots."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.models.attention.decode_attention import BACKENDS
from asyppo_jax.sampling import DecodingOptions, engine, sample
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


@pytest.mark.parametrize("slots", [1, 3, 8, 12, 100])
def test_the_number_of_slots_changes_no_token(params, prompts, sampler, slots):
    together = sampler(params, prompts, jax.random.key(0), options=OPTIONS)
    with_few_slots = sampler(
        params, prompts, jax.random.key(0), options=replace(OPTIONS, slots=slots)
    )
    np.testing.assert_array_equal(together.tokens, with_few_slots.tokens)
    np.testing.assert_array_equal(together.completion_mask, with_few_slots.completion_mask)
    np.testing.assert_allclose(together.log_probs, with_few_slots.log_probs, atol=1e-5)


def test_ever_smaller_programs_change_no_token(params, prompts, sampler, monkeypatch):
    expected = sampler(params, prompts, jax.random.key(0), options=OPTIONS)
    monkeypatch.setattr(engine, "_MIN_SLOTS", 1)
    monkeypatch.setattr(engine, "_MIN_SAVED", 2)
    monkeypatch.setattr(engine, "_MIN_TOKENS", 1)
    shrinking = jax.jit(partial(sample, networks=NETWORKS, options=OPTIONS))
    rollout = shrinking(params, prompts, jax.random.key(0))
    np.testing.assert_array_equal(expected.tokens, rollout.tokens)
    np.testing.assert_allclose(expected.log_probs, rollout.log_probs, atol=1e-5)


def test_programs_shrink_by_enough_rows_and_not_below_the_fewest():
    assert engine._program_sizes(100, 1024) == [100, 64, 48, 32, 24, 16]
    assert engine._program_sizes(65, 1024)[:2] == [65, 48]
    assert engine._program_sizes(23, 1024) == [23]


def test_short_answers_are_decoded_in_fewer_programs():
    all_sizes = [128, 96, 64, 48, 32, 24, 16]
    expected = {
        192: all_sizes,
        112: all_sizes,
        111: all_sizes[::2],
        44: all_sizes[::4],
        31: [128],
        1: [128],
    }
    assert {c: engine._program_sizes(128, c) for c in expected} == expected


def test_each_request_is_served_once_and_by_one_slot(params, prompts, monkeypatch):
    """Watched from inside: which request each slot decodes, at every token."""
    limits = np.random.default_rng(0).integers(1, 9, 12).astype(np.int32)
    seen, refill = [], engine.refill

    def watched(*arguments):
        state = refill(*arguments)
        jax.debug.callback(lambda r: seen.append(np.array(r)), state.slots.request, ordered=True)
        return state

    monkeypatch.setattr(engine, "refill", watched)
    options = replace(OPTIONS, stop_ids=(), slots=3)
    program = jax.jit(partial(sample, networks=NETWORKS, options=options))
    rollout = program(params, prompts, jax.random.key(0), limits=jnp.asarray(limits))
    np.testing.assert_array_equal(rollout.completion_mask.sum(axis=1), limits)
    at = np.stack(seen)  # [iterations, slots]
    for request, limit in enumerate(limits):
        iterations, slots = np.nonzero(at == request)
        assert len(iterations) == limit - 1  # the first token is drawn from the prompt's logits
        assert len(set(slots)) <= 1
        np.testing.assert_array_equal(np.diff(iterations), 1)
    busy = (at < 12).sum(axis=1)
    waiting = np.array([at[i].max() < 11 for i in range(len(at))])
    assert (busy[waiting[:-1].nonzero()] == 3).all()  # no slot idles while a request waits


def test_limits_cut_each_answer_and_change_no_token(params, prompts, sampler):
    limits = jnp.arange(12, dtype=jnp.int32) % 8 + 1
    free = sampler(params, prompts, jax.random.key(0), options=OPTIONS)
    cut = sampler(params, prompts, jax.random.key(0), options=OPTIONS, limits=limits)
    mask = free.completion_mask & (jnp.arange(8)[None] < limits[:, None])
    np.testing.assert_array_equal(cut.completion_mask, mask)
    tokens = jnp.where(mask, free.tokens[:, PROMPT:], OPTIONS.pad_id)
    np.testing.assert_array_equal(cut.tokens[:, PROMPT:], tokens)


def test_a_stop_string_ends_an_answer_in_the_program(params, prompts, sampler):
    """A table over tokens themselves: found is "an even token after an odd one"."""
    odd = np.arange(VOCABULARY) % 2
    table = np.stack([odd, np.where(odd, 1, 2), np.full(VOCABULARY, 2)]).astype(np.int32)
    options = replace(OPTIONS, stop_ids=(), slots=5)
    rollout = sampler(
        params, prompts, jax.random.key(0), options=options, stop_table=jnp.asarray(table)
    )
    free = sampler(params, prompts, jax.random.key(0), options=options)
    for tokens, mask in zip(
        np.asarray(free.tokens)[:, PROMPT:], np.asarray(rollout.completion_mask), strict=True
    ):
        falls = np.nonzero((tokens[:-1] % 2 == 1) & (tokens[1:] % 2 == 0))[0]
        assert mask.sum() == (falls[0] + 2 if len(falls) else 8)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.7, "slots": 5},
        {"top_k": 5, "top_p": 0.8, "min_p": 0.1},
        {"temperature": 0.0},
    ],
)
def test_log_probs_are_the_teacher_forced_ones_of_the_plain_policy(
    params, prompts, sampler, changes
):
    rollout = sampler(params, prompts, jax.random.key(0), options=replace(OPTIONS, **changes))
    real = rollout.completion_mask
    gap = jnp.where(real, rollout.log_probs - _teacher_forced(params, rollout), 0.0)
    np.testing.assert_allclose(gap, 0.0, atol=1e-5)
    assert not jnp.any(jnp.where(real, 0.0, rollout.log_probs))


@pytest.mark.parametrize(("backend", "slots"), [("blocks", 4), ("blocks", 0), ("dense", 4)])
def test_long_answers_of_ragged_rows_are_the_teacher_forced_ones(params, backend, slots):
    """Long enough for several blocks and pieces, refilled in between or all at once."""
    networks = Networks(NETWORKS.actor.clone(decode=BACKENDS[backend]), None)
    width, length = 70, 200
    tokens = jax.random.randint(jax.random.key(3), (3, width), 0, VOCABULARY)
    mask = jnp.arange(width)[None] >= jnp.array([[69], [40], [0]])  # the last is copied in
    options = replace(OPTIONS, max_completion_length=length, stop_ids=(), slots=slots, group_size=2)
    limits = jnp.array([200, 3, 150, 90, 200, 64])
    rollout = jax.jit(partial(sample, networks=networks, options=options))(
        params, PromptBatch(tokens, mask), jax.random.key(0), limits=limits
    )
    whole = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    logits = jit_logits(NETWORKS)(params, rollout.tokens, whole)[:, width - 1 : -1]
    chosen = rollout.tokens[:, width:, None]
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[..., 0]
    gap = jnp.where(rollout.completion_mask, rollout.log_probs - log_probs, 0.0)
    np.testing.assert_array_equal(rollout.completion_mask.sum(axis=1), limits)
    np.testing.assert_allclose(gap, 0.0, atol=1e-5)


def test_sampled_log_probs_are_those_of_the_truncated_distribution(params, prompts, sampler):
    options = replace(OPTIONS, top_k=3, temperature=0.8, sampled_log_probs=True)
    rollout = sampler(params, prompts, jax.random.key(0), options=options)
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    logits = jit_logits(NETWORKS)(params, rollout.tokens, mask)[:, PROMPT - 1 : -1]
    smallest = jnp.sort(logits, axis=-1)[..., -3:-2]
    kept = jnp.where(logits >= smallest, logits / 0.8, -jnp.inf)
    chosen = rollout.tokens[:, PROMPT:, None]
    expected = jnp.take_along_axis(jax.nn.log_softmax(kept), chosen, axis=-1)[..., 0]
    gap = jnp.where(rollout.completion_mask, rollout.sampled_log_probs - expected, 0.0)
    np.testing.assert_allclose(gap, 0.0, atol=1e-5)


def test_entropies_are_the_teacher_forced_ones_of_the_plain_policy(params, prompts, sampler):
    """With fewer slots than answers, so that they are written where their request says."""
    options = replace(OPTIONS, top_k=3, slots=5, entropy=True)
    rollout = sampler(params, prompts, jax.random.key(0), options=options)
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    logits = jit_logits(NETWORKS)(params, rollout.tokens, mask)[:, PROMPT - 1 : -1]
    log_p = jax.nn.log_softmax(logits)
    gap = jnp.where(
        rollout.completion_mask, rollout.entropy + jnp.sum(jnp.exp(log_p) * log_p, axis=-1), 0.0
    )
    np.testing.assert_allclose(gap, 0.0, atol=1e-5)
    assert not jnp.any(jnp.where(rollout.completion_mask, 0.0, rollout.entropy))


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
