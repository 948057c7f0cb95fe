"""The decoding kernels: the TPU's interpreted, cuDNN's with XLA in its place."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.decode_attention import BACKENDS
from asyppo_jax.models.attention.decode_kernels import PAGE, attend_to_pages, attend_with_cudnn
from asyppo_jax.sampling import sample
from asyppo_jax.types import PromptBatch
from tests.simulated import run_module
from tests.tiny import VOCABULARY, jit_logits, make_actor_params, make_networks, make_options

ROWS, KV, WIDTH, LAYERS = 3, 2, 128, 2
CLOSE = 2e-2  # bfloat16 products, of values near 1


def _random(*shape, seed):
    return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)


def _attend(backend: str, cache: Any, layer: int, new: Any, lengths: Any) -> Any:
    """One layer's attention, and the cache of that layer after it, [R, S, KV, d] each."""
    of_token = *new, lengths, lengths.max()
    if backend == "layers":
        attend: Any = partial(attend_with_cudnn, implementation="xla")
        return attend(cache[layer], *of_token)
    with pltpu.force_tpu_interpret_mode():
        mixed, written = jax.jit(attend_to_pages)(cache, jnp.int32(layer), *of_token)
    return mixed, tuple(x[:, layer].transpose(1, 2, 0, 3) for x in written)


@pytest.mark.parametrize("backend", ["pages", "layers"])
def test_a_kernel_is_attention_to_the_tokens_so_far(backend):
    """Rows end within the first page, at its end, and in the last block."""
    length = 3 * PAGE - 7
    keys, values = (_random(LAYERS, ROWS, length, KV, WIDTH, seed=s) for s in (0, 1))
    queries = _random(ROWS, 1, 3 * KV, WIDTH, seed=2)
    new = [_random(ROWS, 1, KV, WIDTH, seed=s) for s in (3, 4)]
    lengths, rows = jnp.array([0, PAGE - 1, length - 1]), jnp.arange(ROWS)
    cache = BACKENDS[backend].make(keys, values, length)
    mixed, written = _attend(backend, cache, 1, (queries, *new), lengths)
    keys, values = (
        x[1].at[rows, lengths].set(n[:, 0]) for x, n in zip((keys, values), new, strict=True)
    )
    for have, want in zip(written, (keys, values), strict=True):
        np.testing.assert_array_equal(have[:, :length], want)
    visible = jnp.arange(length)[None, None] <= lengths[:, None, None]
    queries, keys, values = (x.astype(jnp.float32) for x in (queries, keys, values))
    exact = attend(queries, keys, values, visible)
    np.testing.assert_allclose(mixed.astype(jnp.float32), exact, atol=CLOSE)


def test_a_page_is_read_for_the_row_that_reaches_it_alone():
    """The positions of other rows' blocks hold NaN, which would show even with weight 0."""
    length = 5 * PAGE  # five blocks of one page
    keys, values = (_random(1, 2, length, KV, WIDTH, seed=s) for s in (0, 1))
    reached = jnp.array([PAGE, length])[None, :, None, None, None]
    positions = jnp.arange(length)[None, None, :, None, None]
    keys, values = (jnp.where(positions < reached, x, jnp.nan) for x in (keys, values))
    new = [_random(2, 1, n, WIDTH, seed=2) for n in (KV, KV, KV)]
    lengths = jnp.array([PAGE - 2, length - 1])
    cache = BACKENDS["pages"].make(keys, values, length)
    mixed, _ = _attend("pages", cache, 0, new, lengths)
    assert jnp.isfinite(mixed).all()
    mixed, _ = _attend("pages", cache, 0, new, lengths.at[0].set(PAGE))
    assert not jnp.isfinite(mixed[0]).all()


@pytest.mark.parametrize("backend", [pytest.param("pages", marks=pytest.mark.slow), "layers"])
def test_the_engine_samples_with_a_kernel(backend):
    """Slots refilled: the log-probs are the teacher-forced ones, as near as bfloat16 allows."""
    plain, chosen = make_networks(), BACKENDS[backend]
    if backend == "layers":  # all but the kernel itself, which needs a GPU
        chosen = chosen._replace(attend=partial(attend_with_cudnn, implementation="xla"))
    networks = Networks(plain.actor.clone(decode=chosen), None)
    params = make_actor_params(plain)
    tokens = jax.random.randint(jax.random.key(3), (2, 6), 0, VOCABULARY)
    prompts = PromptBatch(tokens, jnp.arange(6)[None] >= jnp.array([[4], [0]]))
    options = make_options(2, 4, slots=3)
    limits = jnp.array([4, 1, 3, 4])
    with pltpu.force_tpu_interpret_mode():
        run = jax.jit(partial(sample, networks=networks, options=options))
        rollout = jax.block_until_ready(run(params, prompts, jax.random.key(0), limits=limits))
    whole = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    logits = jit_logits(plain)(params, rollout.tokens, whole)[:, 5:-1]
    chosen = rollout.tokens[:, 6:, None]
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, axis=-1)[..., 0]
    gap = jnp.where(rollout.completion_mask, rollout.log_probs - log_probs, 0.0)
    np.testing.assert_array_equal(rollout.completion_mask.sum(axis=1), limits)
    np.testing.assert_allclose(gap, 0.0, atol=CLOSE)


def test_rows_and_heads_spread_over_a_mesh_change_nothing():
    """Four simulated devices, which need a process of their own; both backends, one line each."""
    printed = run_module("tests.decode_kernel_program", devices=4, timeout=300)
    differences = [float(line) for line in printed.splitlines()]
    assert len(differences) == 2 and max(differences) < 1e-2
