"""Decode backends: equal to plain attention, and reading no more than needed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.config import ConfigError
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.decode_attention import (
    BACKENDS,
    attend_to_dense,
    choose_decode_backend,
)
from asyppo_jax.models.attention.decode_blocks import attend_to_blocks
from tests.tiny import QWEN3

ROWS, LENGTH, KV, WIDTH = 3, 500, 2, 8
EVERY_BACKEND = pytest.mark.parametrize("backend", list(BACKENDS))
# Kernels (see test_decode_kernels.py) do not run here; their caches do.
WITHOUT_KERNEL = pytest.mark.parametrize("backend", ["blocks", "dense"])


def _random(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def _attend(backend, cache, new, lengths, longest):
    """One layer's attention in either backend, and the cache after it."""
    if backend == "dense":
        layer = jnp.int32(0)
        return jax.jit(attend_to_dense)(cache, layer, *new, lengths, longest)
    mixed, pieces = jax.jit(attend_to_blocks)(cache[0], *new, lengths, longest)
    return mixed, (pieces,)


@pytest.fixture(scope="module")
def given():
    keys, values = _random(1, ROWS, LENGTH, KV, WIDTH), _random(1, ROWS, LENGTH, KV, WIDTH, seed=1)
    queries = _random(ROWS, 1, 2 * KV, WIDTH, seed=2)
    return keys, values, (queries, *_random(2, ROWS, 1, KV, WIDTH, seed=3))


@WITHOUT_KERNEL
@pytest.mark.parametrize("lengths", [[0, 1, 2], [63, 64, 65], [127, 128, 300], [0, 256, 499]])
def test_every_backend_is_attention_to_the_tokens_so_far(given, backend, lengths):
    keys, values, new = given
    lengths = jnp.array(lengths)
    cache = BACKENDS[backend].make(keys, values, LENGTH)
    mixed, _ = _attend(backend, cache, new, lengths, lengths.max())
    rows = jnp.arange(ROWS)
    keys = keys[0].at[rows, lengths].set(new[1][:, 0])
    values = values[0].at[rows, lengths].set(new[2][:, 0])
    visible = jnp.arange(LENGTH)[None, None] <= lengths[:, None, None]
    np.testing.assert_allclose(mixed, attend(new[0], keys, values, visible), atol=1e-5)


@WITHOUT_KERNEL
def test_positions_that_no_row_has_reached_are_not_read(given, backend):
    """They hold NaN, which would show even with weight 0; only those near the longest row may be
    read, and those are finite."""
    keys, values, new = given
    lengths = jnp.array([3, 100, 7])
    reached = jnp.arange(LENGTH)[None, None, :, None, None] < 128
    keys, values = (jnp.where(reached, x, jnp.nan) for x in (keys, values))
    cache = BACKENDS[backend].make(keys, values, LENGTH)
    mixed, _ = _attend(backend, cache, new, lengths, lengths.max())
    assert jnp.isfinite(mixed).all()
    mixed, _ = _attend(backend, cache, new, lengths, jnp.int32(LENGTH - 1))
    assert not jnp.isfinite(mixed).all()


@WITHOUT_KERNEL
def test_tokens_written_one_by_one_are_those_given_at_once(given, backend):
    keys, values, (queries, *_) = given
    lengths = jnp.array([60, 120, 190])
    cache = BACKENDS[backend].make(keys, values, LENGTH)
    rows = jnp.arange(ROWS)
    grown = BACKENDS[backend].make(keys[:, :, :190], values[:, :, :190], LENGTH)
    for i in range(10):
        at = lengths + i
        new = queries, *(x[0, rows, at][:, None] for x in (keys, values))
        mixed, grown = _attend(backend, grown, new, at, at.max())
        expected, _ = _attend(backend, cache, new, at, at.max())
        np.testing.assert_allclose(mixed, expected, atol=1e-6)


@EVERY_BACKEND
def test_a_copied_row_is_the_prompts_and_leaves_the_others(given, backend):
    keys, values, _ = given
    cache = BACKENDS[backend].make(keys, values, LENGTH)
    prompts = BACKENDS[backend].make(
        7 + keys[:, :2, :70], 7 + values[:, :2, :70], LENGTH, allocate=70
    )
    copied = BACKENDS[backend].copy(cache, jnp.int32(2), prompts, jnp.int32(1))
    keys, values = (x.at[:, 2, :70].set(7 + x[:, 1, :70]) for x in (keys, values))
    expected = BACKENDS[backend].make(keys, values, LENGTH)
    # Whole blocks and pages are copied; what follows is never seen.
    end = {"blocks": 128, "pages": 256}.get(backend, 70)
    for have, want in zip(_positions(backend, copied), _positions(backend, expected), strict=True):
        np.testing.assert_array_equal(have[:2], want[:2])
        np.testing.assert_array_equal(have[2, :70], want[2, :70])
        np.testing.assert_array_equal(have[2, end:], want[2, end:])


@EVERY_BACKEND
def test_rows_are_taken_in_the_order_that_is_asked(given, backend):
    keys, values, _ = given
    cache = BACKENDS[backend].take(BACKENDS[backend].make(keys, values, LENGTH), jnp.array([2, 0]))
    for have, want in zip(_positions(backend, cache), (keys, values), strict=True):
        np.testing.assert_array_equal(have[:, :LENGTH], want[0, jnp.array([2, 0])])


def _positions(backend, cache):
    """Keys and values of the one layer, [R, S, KV, d]."""
    if backend == "dense":
        return cache[0][0], cache[1][0]
    if backend == "layers":
        return cache[0]
    if backend == "pages":
        return tuple(x[:, 0].transpose(1, 2, 0, 3) for x in cache)
    keys = np.concatenate([k.transpose(0, 2, 4, 1, 3) for k, _ in cache[0]], axis=1)
    values = np.concatenate([v.transpose(0, 2, 3, 1, 4) for _, v in cache[0]], axis=1)
    return tuple(x.reshape(x.shape[0], -1, *x.shape[3:]) for x in (keys, values))


@pytest.mark.parametrize(
    ("platform", "dtype", "head_dim", "backend"),
    [
        ("cpu", "float32", 128, "blocks"),
        ("cpu", "bfloat16", 128, "blocks"),
        ("tpu", "bfloat16", 128, "pages"),
        ("tpu", "bfloat16", 64, "dense"),
        ("tpu", "float32", 128, "dense"),
        ("gpu", "bfloat16", 64, "layers"),
        ("cuda", "bfloat16", 256, "dense"),
        ("gpu", "float32", 64, "dense"),
    ],
)
def test_the_backend_follows_the_platform_and_what_its_kernel_can_do(
    platform, dtype, head_dim, backend
):
    config = dataclasses.replace(QWEN3, head_dim=head_dim)
    chosen = choose_decode_backend("auto", platform, config, jnp.dtype(dtype))
    assert chosen.name == backend


@pytest.mark.parametrize(
    ("backend", "dtype", "head_dim", "said"),
    [
        ("pages", "float32", 128, "needs bfloat16, but the actor's dtype is float32"),
        ("pages", "bfloat16", 64, "head_dim that is a multiple of 128, but the actor's is 64"),
        ("pages", "bfloat16", 128, "is a kernel for tpu, but this is a cpu; choose 'auto'"),
        ("layers", "bfloat16", 256, "head_dim that is a multiple of 8 up to 128, but .* 256"),
    ],
)
def test_a_kernel_that_cannot_serve_the_model_is_refused(backend, dtype, head_dim, said):
    config = dataclasses.replace(QWEN3, head_dim=head_dim)
    with pytest.raises(ConfigError, match=said):
        choose_decode_backend(backend, "cpu", config, jnp.dtype(dtype))
    assert choose_decode_backend("dense", "cpu", config, jnp.dtype(dtype)) == BACKENDS["dense"]
