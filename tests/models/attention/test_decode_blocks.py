"""Prompts that rows share while they decode: seen as if each row had its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.decode_blocks import (
    SharedPromptCache,
    as_pieces,
    attend_to_blocks,
    share_prompts,
)

N, GROUP, PROMPT, LENGTH, KV, WIDTH = 3, 4, 300, 80, 2, 8
PROMPT_LENGTHS = jnp.array([300, 1, 130])
HELD = jnp.array([0, 1, 64, 79, 5, 63, 70, 2, 10, 20, 30, 40])  # by row, before the new token


def _random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def prompts():
    return _random(N, PROMPT, KV, WIDTH), _random(N, PROMPT, KV, WIDTH, seed=1)


@pytest.fixture(scope="module")
def own():
    shape = N * GROUP, LENGTH, KV, WIDTH
    return _random(*shape, seed=2), _random(*shape, seed=3)


@pytest.fixture(scope="module")
def new():
    shape = N * GROUP, 1, KV, WIDTH
    return _random(N * GROUP, 1, 2 * KV, WIDTH, seed=4), _random(*shape, seed=5), _random(*shape)


def _shared(prompts, longest=PROMPT) -> SharedPromptCache:
    keys, values = (x[None] for x in prompts)  # of one layer
    return share_prompts(keys, values, PROMPT_LENGTHS, jnp.int32(longest), GROUP)


def _attend(shared, own, new, rows):
    pieces = as_pieces(*(x[rows] for x in own), length=LENGTH, positions=LENGTH)
    held = HELD[rows]
    seen = shared.layers[0], shared.prompt_index
    given = (x[rows] for x in new)
    return jax.jit(attend_to_blocks)(pieces, *given, held, held.max(), seen)[0]


def _expected(prompts, own, new, rows):
    """Plain attention of each row to its prompt's tokens, its own and the new one."""
    mixed = []
    for row in np.asarray(rows):
        prompt, held = row // GROUP, HELD[row]
        length = PROMPT_LENGTHS[prompt]
        keys, values = (
            jnp.concatenate([p[prompt, :length], o[row, :held], n[row]])[None]
            for p, o, n in zip(prompts, own, new[1:], strict=True)
        )
        visible = jnp.ones((1, 1, keys.shape[1]), bool)
        mixed.append(attend(new[0][row][None], keys, values, visible)[0])
    return jnp.stack(mixed)


ALL = tuple(range(N * GROUP))


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [(11, 3, 4, 0, 7)],  # more rows than prompts: these stay shared
        [(11, 3, 4, 0, 7), (4, 1, 2, 3)],  # by their places among the rows before
        [(5, 6)],  # fewer: each row gets its own
        [(11, 3, 4, 0, 7), (2, 0, 3), (1, 2)],
    ],
)
def test_a_row_sees_its_prompt_and_then_its_own_tokens(prompts, own, new, steps):
    shared, rows = _shared(prompts), jnp.array(ALL)
    for step in steps:
        shared, rows = shared.of_rows(jnp.array(step)), rows[jnp.array(step)]
    np.testing.assert_allclose(
        _attend(shared, own, new, rows), _expected(prompts, own, new, rows), atol=1e-5
    )


def test_prompts_are_held_once_until_a_row_each_is_less(prompts):
    shared = _shared(prompts)
    held = lambda shared: {x.shape[0] for x in jax.tree.leaves(shared.layers)}  # noqa: E731
    assert held(shared) == held(shared.of_rows(jnp.arange(4))) == {N}
    assert held(shared.of_rows(jnp.array([7, 2]))) == {2}


def test_what_is_behind_the_longest_prompt_is_not_read(prompts, own, new):
    """NaN there would show even with weight 0; the longest decides, and here it is said wrongly."""
    keys, values = (jnp.where(jnp.arange(PROMPT)[:, None, None] < 192, x, jnp.nan) for x in prompts)
    rows = jnp.array(ALL)
    assert jnp.isfinite(_attend(_shared((keys, values), longest=192), own, new, rows)).all()
    assert not jnp.isfinite(_attend(_shared((keys, values)), own, new, rows)).all()


def test_rows_shorter_than_a_block_hold_no_more_places_than_they_need():
    none = jnp.zeros((2, 0, KV, WIDTH))
    ((keys, values),) = as_pieces(none, none, 10, 10)
    assert keys.shape == (2, KV, 1, WIDTH, 10) and values.shape == (2, KV, 1, 10, WIDTH)
