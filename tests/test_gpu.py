"""What runs on a GPU alone, against float32 on a CPU: cuDNN's attention, decoding, a whole step.

JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.actor_critic import Actor, Critic, Networks
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.decode_attention import BACKENDS
from asyppo_jax.models.attention.decode_kernels import attend_with_cudnn
from asyppo_jax.models.attention.segments import visible
from asyppo_jax.models.attention.self_attention import self_attention
from asyppo_jax.sampling import sample
from asyppo_jax.types import PromptBatch
from tests.tiny import (
    QWEN3,
    VOCABULARY,
    jit_logits,
    jit_step,
    make_actor_params,
    make_config,
    make_networks,
    make_options,
    make_rollout,
    make_state,
)

pytestmark = pytest.mark.gpu

SHAPE = dataclasses.replace(QWEN3, head_dim=64)
HALF = jnp.dtype("bfloat16")
CLOSE = 4e-2  # of products in bfloat16


@pytest.fixture(autouse=True)
def devices():
    """The GPU, where arrays are made, and the CPU that it is compared with."""
    if jax.default_backend() != "gpu":
        pytest.skip("jax sees no GPU; JAX_PLATFORMS=cuda,cpu lets it, with jax[cuda12] installed")
    return jax.devices("gpu")[0], jax.devices("cpu")[0]


def _on(device, function, *arrays):
    """`function` of float32 copies of these arrays, jitted on a device."""
    arrays = jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == HALF else x, jax.device_put(arrays, device)
    )
    with jax.default_device(device):
        return jax.jit(function)(*arrays)


def _random(*shape, seed):
    return jax.random.normal(jax.random.key(seed), shape, HALF)


@pytest.mark.parametrize("packed", [False, True], ids=["lengths", "segments"])
def test_cudnns_attention_and_its_gradients(packed, devices):
    length = 96
    queries = _random(3, length, 4, 64, seed=0)
    keys, values = (_random(3, length, 2, 64, seed=s) for s in (1, 2))
    ends = jnp.array([[length], [40], [1]])
    places = jnp.arange(length)[None]
    segments = (places < ends).astype(jnp.int32)
    if packed:
        segments = segments * (1 + (places >= 17))
    real = (segments > 0)[..., None, None]

    def gradients(attention):
        def loss(q, k, v):
            mixed = jnp.where(real, attention(q, k, v).astype(jnp.float32), 0.0)
            return jnp.sum(jnp.sin(mixed)), mixed

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)

    backend = "cudnn_packed" if packed else "cudnn"
    ours = gradients(lambda q, k, v: self_attention(q, k, v, segments, backend))
    plain = gradients(lambda q, k, v: attend(q, k, v, visible(segments, segments)))
    have, want = jax.jit(ours)(queries, keys, values), _on(devices[1], plain, queries, keys, values)
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        # A value's gradient is a sum of up to 11 here, which bfloat16 rounds to 1/16.
        close = max(CLOSE, 1e-2 * float(jnp.abs(b).max()))
        np.testing.assert_allclose(np.asarray(a, np.float32), b, atol=close)


def test_cudnns_attention_of_one_token_to_its_cache(devices):
    rows, size = 5, 130
    cache = tuple(_random(rows, size, 2, 64, seed=s) for s in (0, 1))
    new = [_random(rows, 1, n, 64, seed=2 + i) for i, n in enumerate((6, 2, 2))]
    lengths = jnp.array([0, 1, 63, 64, size - 1])
    mixed, written = jax.jit(attend_with_cudnn)(cache, *new, lengths, lengths.max())
    for have, old, token in zip(written, cache, new[1:], strict=True):
        np.testing.assert_array_equal(have, old.at[jnp.arange(rows), lengths].set(token[:, 0]))
    seen = jnp.arange(size)[None, None] <= lengths[:, None, None]
    exact = _on(
        devices[1],
        lambda q, k, v: attend(q, k, v, jax.device_put(seen, devices[1])),
        new[0],
        *written,
    )
    np.testing.assert_allclose(np.asarray(mixed, np.float32), exact, atol=CLOSE)


@pytest.mark.parametrize(("backend", "slots"), [("layers", 0), ("layers", 3), ("dense", 3)])
def test_the_engines_log_probs_are_those_of_the_full_sequence(backend, slots, devices):
    dtype = HALF if backend == "layers" else jnp.dtype("float32")
    plain = Networks(Actor(SHAPE), None)
    networks = Networks(
        Actor(
            SHAPE, dtype, attention="cudnn" if dtype == HALF else "xla", decode=BACKENDS[backend]
        ),
        None,
    )
    params = make_actor_params(plain)
    tokens = jax.random.randint(jax.random.key(3), (2, 6), 0, VOCABULARY)
    prompts = PromptBatch(tokens, jnp.arange(6)[None] >= jnp.array([[4], [0]]))
    options = make_options(4, 8, slots=slots)
    limits = jnp.array([8, 1, 3, 8, 5, 8, 2, 8])
    precise = jax.default_matmul_precision("float32")
    with precise:
        run = jax.jit(partial(sample, networks=networks, options=options))
        rollout = run(params, prompts, jax.random.key(0), limits=limits)
        whole = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
        logits = jit_logits(networks)(params, rollout.tokens, whole)[:, 5:-1]
    log_probs = jax.nn.log_softmax(logits)
    log_probs = jnp.take_along_axis(log_probs, rollout.tokens[:, 6:, None], axis=-1)[..., 0]
    gap = jnp.where(rollout.completion_mask, rollout.log_probs - log_probs, 0.0)
    np.testing.assert_array_equal(rollout.completion_mask.sum(axis=1), limits)
    np.testing.assert_allclose(gap, 0.0, atol=CLOSE if dtype == HALF else 1e-5)


def test_a_step_in_bfloat16_is_near_that_of_a_cpu_in_float32(devices):
    config = make_config()
    rollout, state = make_rollout(config), make_state(config, make_networks(2, SHAPE))
    small = dataclasses.replace(SHAPE, num_layers=1)
    shape = HALF, "none", "cudnn"
    networks = Networks(
        Actor(SHAPE, *shape, decode=BACKENDS["layers"], unroll=0), Critic(small, *shape, unroll=0)
    )
    _, ours = jit_step(config, networks)(state, rollout)
    with jax.default_device(devices[1]):
        state, rollout = jax.device_put((state, rollout), devices[1])
        _, exact = jit_step(config, make_networks(2, SHAPE))(state, rollout)
    for name in ("critic/loss", "actor/loss", "actor/entropy", "critic/grad_norm"):
        np.testing.assert_allclose(ours[name], exact[name], rtol=CLOSE, atol=CLOSE, err_msg=name)
