"""Prompts that rows share while they decode: as if each row had its own copy."""

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
CACHED = jnp.array([0, 1, 64, 79, 5, 63, 70, 2, 10, 20, 30, 40])  # by row, before the new token


def _random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def prompts():
    return _random(N, PROMPT, KV, WIDTH), _random(N, PROMPT, KV, WIDTH, seed=1)


@pytest.fixture(scope="module")
def row_kv():
    shape = N * GROUP, LENGTH, KV, WIDTH
    return _random(*shape, seed=2), _random(*shape, seed=3)


@pytest.fixture(scope="module")
def new():
    shape = N * GROUP, 1, KV, WIDTH
    return _random(N * GROUP, 1, 2 * KV, WIDTH, seed=4), _random(*shape, seed=5), _random(*shape)


def _shared(prompts, longest=PROMPT) -> SharedPromptCache:
    keys, values = (x[None] for x in prompts)  # of one layer
    return share_prompts(keys, values, PROMPT_LENGTHS, jnp.int32(longest), GROUP)


def _attend(shared, row_kv, new, rows):
    pieces = as_pieces(*(x[rows] for x in row_kv), length=LENGTH, positions=LENGTH)
    cached = CACHED[rows]
    seen = shared.layers[0], shared.prompt_index
    given = (x[rows] for x in new)
    return jax.jit(attend_to_blocks)(pieces, *given, cached, cached.max(), seen)[0]


def _expected(prompts, row_kv, new, rows):
    """Plain attention of each row to its prompt's tokens, its own and the new one."""
    mixed = []
    for row in np.asarray(rows):
        prompt, cached = row // GROUP, CACHED[row]
        length = PROMPT_LENGTHS[prompt]
        keys, values = (
            jnp.concatenate([p[prompt, :length], o[row, :cached], n[row]])[None]
            for p, o, n in zip(prompts, row_kv, new[1:], strict=True)
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
        [(5, 6)],  # fewer: each row gets its own copy
        [(11, 3, 4, 0, 7), (2, 0, 3), (1, 2)],
    ],
)
def test_a_row_sees_its_prompt_and_then_its_own_tokens(prompts, row_kv, new, steps):
    shared, rows = _shared(prompts), jnp.array(ALL)
    for step in steps:
        shared, rows = shared.of_rows(jnp.array(step)), rows[jnp.array(step)]
    np.testing.assert_allclose(
        _attend(shared, row_kv, new, rows), _expected(prompts, row_kv, new, rows), atol=1e-5
    )


def test_prompts_are_stored_once_until_one_copy_per_row_is_less(prompts):
    shared = _shared(prompts)
    num_copies = lambda shared: {x.shape[0] for x in jax.tree.leaves(shared.layers)}  # noqa: E731
    assert num_copies(shared) == num_copies(shared.of_rows(jnp.arange(4))) == {N}
    assert num_copies(shared.of_rows(jnp.array([7, 2]))) == {2}


def test_positions_after_the_longest_prompt_are_not_read(prompts, row_kv, new):
    """NaN there would show even with weight 0; the longest decides, and here it is said wrongly."""
    keys, values = (jnp.where(jnp.arange(PROMPT)[:, None, None] < 192, x, jnp.nan) for x in prompts)
    rows = jnp.array(ALL)
    assert jnp.isfinite(_attend(_shared((keys, values), longest=192), row_kv, new, rows)).all()
    assert not jnp.isfinite(_attend(_shared((keys, values)), row_kv, new, rows)).all()


def test_rows_shorter_than_a_block_have_no_more_positions_than_they_need():
    none = jnp.zeros((2, 0, KV, WIDTH))
    ((keys, values),) = as_pieces(none, none, 10, 10)
    assert keys.shape == (2, KV, 1, WIDTH, 10) and values.shape == (2, KV, 1, 10, WIDTH)
