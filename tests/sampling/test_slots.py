"""Slots: what they hold when all decode together, and when requests wait."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.attention.decode_attention import BACKENDS
from asyppo_jax.sampling.slots import Answers, Requests, all_at_once, fewer, refill, with_free_slots

LAYERS, N, GROUP, PROMPT, KV, WIDTH, LENGTH = 2, 2, 3, 5, 2, 4, 7
BATCH = N * GROUP
LENGTHS = jnp.array([5, 2])
OVER = jnp.array([False, True, False, False, False, True])


@pytest.fixture(scope="module")
def kept():
    shape = LAYERS, N, PROMPT, KV, WIDTH
    return jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), shape)


@pytest.fixture(scope="module")
def requests():
    keys = jax.random.split(jax.random.key(0), BATCH)
    return Requests(keys, jnp.full(BATCH, LENGTH), LENGTHS, OVER, None, None)


@pytest.fixture(scope="module")
def answers():
    tokens = jnp.zeros((BATCH, LENGTH), jnp.int32).at[:, 0].set(10 + jnp.arange(BATCH))
    ones = jnp.ones(BATCH, jnp.int32)
    return Answers(tokens, jnp.zeros((BATCH, LENGTH)), None, ones, 0 * ones)


def test_all_at_once_every_request_has_a_slot_and_nothing_waits(kept, requests, answers):
    progress = all_at_once(BACKENDS["blocks"], kept, requests, answers)
    slots = progress.slots
    assert progress.next == BATCH
    np.testing.assert_array_equal(slots.request, [0, BATCH, 2, 3, 4, BATCH])
    np.testing.assert_array_equal(slots.token, 10 + np.arange(BATCH))
    np.testing.assert_array_equal(slots.length, [5, 0, 5, 2, 2, 0])
    np.testing.assert_array_equal(slots.in_cache()[jnp.array([0, 2, 3, 4])], 0)
    assert refill(progress, requests, BACKENDS["blocks"], GROUP) is progress


def test_all_at_once_prompts_take_no_room_in_the_rows(kept, requests, answers):
    slots = all_at_once(BACKENDS["blocks"], kept, requests, answers).slots
    size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    place = 2 * LAYERS * KV * WIDTH
    assert slots.shared is not None
    assert size(slots.shared.layers) == N * PROMPT * place
    assert size(slots.cache) == BATCH * LENGTH * place


def test_all_at_once_a_prompt_of_one_response_begins_its_row(kept, requests, answers):
    requests = requests._replace(keys=requests.keys[:N], over=OVER[:N], limits=requests.limits[:N])
    slots = all_at_once(
        BACKENDS["blocks"], kept, requests, jax.tree.map(lambda x: x[:N], answers)
    ).slots
    assert slots.shared is None
    np.testing.assert_array_equal(slots.request, [0, N])
    np.testing.assert_array_equal(slots.length, [5, 0])
    for (keys, _), *_ in slots.cache:
        assert keys.shape == (N, KV, 1, WIDTH, PROMPT + LENGTH)


def test_all_at_once_without_sharing_each_row_begins_with_its_prompt(kept, requests, answers):
    progress = all_at_once(BACKENDS["layers"], kept, requests, answers)
    slots = progress.slots
    assert slots.shared is None and progress.next == BATCH
    np.testing.assert_array_equal(slots.length, [5, 0, 5, 2, 2, 0])
    assert refill(progress, requests, BACKENDS["layers"], GROUP) is progress
    for layer, own in enumerate(slots.cache):
        for have, prompt in zip(own, kept, strict=True):
            assert have.shape == (BATCH, PROMPT + LENGTH, KV, WIDTH)
            np.testing.assert_array_equal(
                have[:, :PROMPT], jnp.repeat(prompt[layer], GROUP, axis=0)
            )
            assert not have[:, PROMPT:].any()


def test_fewer_slots_are_those_at_work_in_their_order(kept, requests, answers):
    slots = all_at_once(BACKENDS["blocks"], kept, requests, answers).slots
    four = fewer(BACKENDS["blocks"], slots, 4)
    np.testing.assert_array_equal(four.request, [0, 2, 3, 4])
    np.testing.assert_array_equal(four.token, [10, 12, 13, 14])
    np.testing.assert_array_equal(four.length, [5, 5, 2, 2])
    assert {x.shape[0] for x in jax.tree.leaves(four.cache)} == {4}
    assert four.shared is not None
    np.testing.assert_array_equal(four.shared.prompt_index.prompt_lengths, [5, 5, 2, 2])


@pytest.mark.parametrize("backend", ["blocks", "dense"])
def test_in_turn_free_slots_take_the_next_requests_that_are_not_over(
    kept, requests, answers, backend
):
    length = PROMPT + LENGTH
    requests = requests._replace(prompts=BACKENDS[backend].make(*kept, length=length, part=PROMPT))
    progress = with_free_slots(BACKENDS[backend], kept[0], requests, answers, 3, length)
    assert (progress.slots.request == BATCH).all() and progress.next == 0
    filled = jax.jit(lambda p: refill(p, requests, BACKENDS[backend], GROUP))(progress)
    np.testing.assert_array_equal(filled.slots.request, [0, 2, 3])  # 1 is over
    np.testing.assert_array_equal(filled.slots.length, [5, 5, 2])
    assert filled.next == 4
    freed = filled.slots._replace(request=jnp.array([0, BATCH, 3]))
    again = refill(filled._replace(slots=freed), requests, BACKENDS[backend], GROUP)
    np.testing.assert_array_equal(again.slots.request, [0, 4, 3])
    assert again.next == 5  # the last waits for a slot, though it is over


def test_a_slot_has_its_own_copy_of_its_prompt(kept, requests, answers):
    length = PROMPT + LENGTH
    requests = requests._replace(prompts=BACKENDS["dense"].make(*kept, length=length, part=PROMPT))
    progress = with_free_slots(BACKENDS["dense"], kept[0], requests, answers, 3, length)
    cache = refill(progress, requests, BACKENDS["dense"], GROUP).slots.cache
    for have, prompt in zip(cache, kept, strict=True):
        np.testing.assert_array_equal(have[:, :, :PROMPT], prompt[:, jnp.array([0, 0, 1])])
