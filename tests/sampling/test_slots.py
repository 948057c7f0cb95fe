"""Slots: what they contain when all decode together, and when requests wait."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.attention.decode_attention import BACKENDS
from asyppo_jax.sampling.slots import (
    DecodedAnswers,
    Requests,
    compact_slots,
    refill,
    start_empty,
    start_full,
)

LAYERS, N, GROUP, PROMPT, KV, WIDTH, LENGTH = 2, 2, 3, 5, 2, 4, 7
BATCH = N * GROUP
LENGTHS = jnp.array([5, 2])
ENDS_AT_ONCE = jnp.array([False, True, False, False, False, True])


@pytest.fixture(scope="module")
def kv():
    shape = LAYERS, N, PROMPT, KV, WIDTH
    return jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), shape)


@pytest.fixture(scope="module")
def requests():
    keys = jax.random.split(jax.random.key(0), BATCH)
    return Requests(keys, jnp.full(BATCH, LENGTH), LENGTHS, ENDS_AT_ONCE, None, None)


@pytest.fixture(scope="module")
def answers():
    tokens = jnp.zeros((BATCH, LENGTH), jnp.int32).at[:, 0].set(10 + jnp.arange(BATCH))
    ones = jnp.ones(BATCH, jnp.int32)
    return DecodedAnswers(tokens, jnp.zeros((BATCH, LENGTH)), None, None, ones, 0 * ones)


def test_start_full_gives_every_request_a_slot_and_nothing_waits(kv, requests, answers):
    state = start_full(BACKENDS["blocks"], kv, requests, answers)
    slots = state.slots
    assert state.next == BATCH
    np.testing.assert_array_equal(slots.request, [0, BATCH, 2, 3, 4, BATCH])
    np.testing.assert_array_equal(slots.token, 10 + np.arange(BATCH))
    np.testing.assert_array_equal(slots.length, [5, 0, 5, 2, 2, 0])
    np.testing.assert_array_equal(slots.in_cache()[jnp.array([0, 2, 3, 4])], 0)
    assert refill(state, requests, BACKENDS["blocks"], GROUP) is state


def test_start_full_shared_prompts_take_no_room_in_the_rows(kv, requests, answers):
    slots = start_full(BACKENDS["blocks"], kv, requests, answers).slots
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    position = 2 * LAYERS * KV * WIDTH
    assert slots.shared is not None
    assert size(slots.shared.layers) == N * PROMPT * position
    assert size(slots.cache) == BATCH * LENGTH * position


def test_start_full_a_prompt_of_one_response_begins_its_row(kv, requests, answers):
    requests = requests._replace(
        keys=requests.keys[:N], ends_at_once=ENDS_AT_ONCE[:N], limits=requests.limits[:N]
    )
    slots = start_full(
        BACKENDS["blocks"], kv, requests, jax.tree.map(lambda x: x[:N], answers)
    ).slots
    assert slots.shared is None
    np.testing.assert_array_equal(slots.request, [0, N])
    np.testing.assert_array_equal(slots.length, [5, 0])
    for (keys, _), *_ in slots.cache:
        assert keys.shape == (N, KV, 1, WIDTH, PROMPT + LENGTH)


def test_start_full_without_sharing_each_row_begins_with_its_prompt(kv, requests, answers):
    state = start_full(BACKENDS["layers"], kv, requests, answers)
    slots = state.slots
    assert slots.shared is None and state.next == BATCH
    np.testing.assert_array_equal(slots.length, [5, 0, 5, 2, 2, 0])
    assert refill(state, requests, BACKENDS["layers"], GROUP) is state
    for layer, arrays in enumerate(slots.cache):
        for have, prompt in zip(arrays, kv, strict=True):
            assert have.shape == (BATCH, PROMPT + LENGTH, KV, WIDTH)
            np.testing.assert_array_equal(
                have[:, :PROMPT], jnp.repeat(prompt[layer], GROUP, axis=0)
            )
            assert not have[:, PROMPT:].any()


def test_compact_slots_are_those_in_use_in_their_order(kv, requests, answers):
    slots = start_full(BACKENDS["blocks"], kv, requests, answers).slots
    four = compact_slots(BACKENDS["blocks"], slots, 4)
    np.testing.assert_array_equal(four.request, [0, 2, 3, 4])
    np.testing.assert_array_equal(four.token, [10, 12, 13, 14])
    np.testing.assert_array_equal(four.length, [5, 5, 2, 2])
    assert {x.shape[0] for x in jax.tree.leaves(four.cache)} == {4}
    assert four.shared is not None
    np.testing.assert_array_equal(four.shared.prompt_index.prompt_lengths, [5, 5, 2, 2])


@pytest.mark.parametrize("backend", ["blocks", "dense"])
def test_start_empty_free_slots_take_the_next_requests_that_have_not_ended(
    kv, requests, answers, backend
):
    length = PROMPT + LENGTH
    requests = requests._replace(
        prompts=BACKENDS[backend].make(*kv, length=length, allocate=PROMPT)
    )
    state = start_empty(BACKENDS[backend], kv[0], requests, answers, 3, length)
    assert (state.slots.request == BATCH).all() and state.next == 0
    filled = jax.jit(lambda p: refill(p, requests, BACKENDS[backend], GROUP))(state)
    np.testing.assert_array_equal(filled.slots.request, [0, 2, 3])  # 1 ended with its first token
    np.testing.assert_array_equal(filled.slots.length, [5, 5, 2])
    assert filled.next == 4
    freed = filled.slots._replace(request=jnp.array([0, BATCH, 3]))
    again = refill(filled._replace(slots=freed), requests, BACKENDS[backend], GROUP)
    np.testing.assert_array_equal(again.slots.request, [0, 4, 3])
    assert again.next == 5  # the last waits for a slot, though it has ended


def test_a_slot_has_its_own_copy_of_its_prompt(kv, requests, answers):
    length = PROMPT + LENGTH
    requests = requests._replace(
        prompts=BACKENDS["dense"].make(*kv, length=length, allocate=PROMPT)
    )
    state = start_empty(BACKENDS["dense"], kv[0], requests, answers, 3, length)
    cache = refill(state, requests, BACKENDS["dense"], GROUP).slots.cache
    for have, prompt in zip(cache, kv, strict=True):
        np.testing.assert_array_equal(have[:, :, :PROMPT], prompt[:, jnp.array([0, 0, 1])])
