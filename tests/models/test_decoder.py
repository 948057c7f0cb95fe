"""The decoder as a function: causality, padding, and the cache."""

from collections import Counter
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

from asyppo_jax.config import NetworkConfig
from asyppo_jax.models.actor_critic import Actor, Networks, init_actor
from asyppo_jax.models.attention import self_attention
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.causal_kernels import splash_interpreted
from asyppo_jax.models.attention.decode_attention import BACKENDS
from asyppo_jax.models.attention.segments import visible
from tests.tiny import (
    ARCHITECTURES,
    QWEN3,
    VOCABULARY,
    assert_trees_equal,
    jit_logits,
    make_actor_params,
    make_networks,
)


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def model(request):
    networks = make_networks(0, ARCHITECTURES[request.param])
    return networks, make_actor_params(networks)


def _tokens(shape, seed=0):
    return jax.random.randint(jax.random.key(seed), shape, 0, VOCABULARY)


def test_later_tokens_do_not_change_earlier_logits(model):
    networks, params = model
    tokens, mask = _tokens((1, 7)), jnp.ones((1, 7), bool)
    before = jit_logits(networks)(params, tokens, mask)
    after = jit_logits(networks)(params, tokens.at[0, 4].set((tokens[0, 4] + 1) % 61), mask)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-3


def test_the_gradient_of_a_logit_reaches_earlier_embeddings_only(model):
    networks, params = model
    # Every position its own token, so that a token's embedding stands for its position.
    tokens, mask = jnp.arange(7)[None], jnp.ones((1, 7), bool)

    def one_logit(p):
        hidden = networks.actor_hidden(p, tokens, mask)
        return jnp.sum(hidden[0, 3])

    gradient = jax.jit(jax.grad(one_logit))(params)["decoder"]["embedding"]
    reached = np.abs(gradient).sum(axis=1) > 0
    assert reached[:4].all() and not reached[4:].any()


def test_left_padding_changes_no_logit(model):
    networks, params = model
    tokens = _tokens((1, 6))
    plain = jit_logits(networks)(params, tokens, jnp.ones((1, 6), bool))
    padded = jnp.concatenate([_tokens((1, 3), seed=1), tokens], axis=1)
    mask = jnp.arange(9)[None] >= 3
    with_padding = jit_logits(networks)(params, padded, mask)[:, 3:]
    np.testing.assert_allclose(plain, with_padding, atol=2e-6)


def test_packed_sequences_have_the_logits_that_they_have_alone(model):
    networks, params = model
    tokens = _tokens((1, 9))
    packed = jit_logits(networks)(params, tokens, jnp.array([[1, 1, 1, 1, 2, 2, 2, 2, 2]]))
    first = jit_logits(networks)(params, tokens[:, :4], jnp.ones((1, 4), bool))
    second = jit_logits(networks)(params, tokens[:, 4:], jnp.ones((1, 5), bool))
    np.testing.assert_allclose(packed, np.concatenate([first, second], 1), atol=2e-6)


@pytest.mark.parametrize("backend", ["blocks", "dense"])
def test_decoding_token_by_token_equals_the_full_sequence(model, backend):
    networks, params = model
    networks = Networks(networks.actor.clone(decode=BACKENDS[backend]), None)
    config, prompt = networks.actor.config, jnp.array([1, 3])
    tokens, mask = _tokens((2, 6)), jnp.ones((2, 6), bool)
    whole = jit_logits(networks)(params, tokens, mask)
    logits, (keys, values) = jax.jit(networks.actor_prefill)(params, tokens[:, :3], prompt)
    np.testing.assert_allclose(logits, whole[jnp.arange(2), prompt - 1], atol=1e-5)
    assert keys.shape == (config.num_layers, 2, 3, config.num_kv_heads, config.head_dim)
    cache, step_params = BACKENDS[backend].make(keys, values, 6), networks.step_params(params, 6)
    step = jax.jit(networks.actor_step)
    for lengths in (prompt, prompt + 1, prompt + 2):  # each row at a place of its own
        new = tokens[jnp.arange(2), lengths]
        logits, cache = step(step_params, new, lengths, lengths.max(), cache)
        np.testing.assert_allclose(logits, whole[jnp.arange(2), lengths], atol=1e-5)


def test_rows_rolled_for_cudnn_agree_with_rows_as_they_are(monkeypatch):
    """A backend that knows lengths only; padding on both sides, on neither, and no token at all."""

    def by_length(queries, keys, values, segments, _):
        lengths = jnp.sum(segments, axis=1)[:, None]
        first = (jnp.arange(8)[None] < lengths).astype(jnp.int32)
        return attend(queries, keys, values, visible(first, first))

    monkeypatch.setitem(self_attention._KERNELS, "cudnn", by_length)
    tokens = _tokens((3, 8))
    mask = jnp.array([[0, 0, 1, 1, 1, 1, 1, 0], [1] * 8, [0] * 8], bool)
    params = make_actor_params(Networks(Actor(QWEN3), None))

    def hidden_and_gradient(attention):
        networks = Networks(Actor(QWEN3, attention=attention), None)

        def loss(p):
            hidden = jnp.where(mask[..., None], networks.actor_hidden(p, tokens, mask), 0.0)
            return jnp.sum(jnp.sin(hidden)), hidden

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    ours, expected = (hidden_and_gradient(attention) for attention in ("cudnn", "xla"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), ours, expected
    )
    assert np.abs(expected[0]["decoder"]["embedding"]).max() > 1


REMAT_NAMES = get_args(get_type_hints(NetworkConfig)["remat"])


@pytest.mark.parametrize("remat", [name for name in REMAT_NAMES if name != "none"])
def test_rematerialisation_changes_no_gradient(remat):
    tokens, mask = _tokens((2, 6)), jnp.ones((2, 6), bool)
    plain = Networks(Actor(QWEN3), None)
    params = make_actor_params(plain)

    def gradient(networks):
        loss = lambda p: jnp.sum(networks.actor_hidden(p, tokens, mask) ** 2)  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    saved = gradient(plain)
    recomputed = gradient(Networks(Actor(QWEN3, remat=remat), None))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), saved, recomputed
    )


def test_a_backward_pass_computes_again_what_a_layer_does_not_store(monkeypatch):
    monkeypatch.setitem(self_attention._KERNELS, "splash", splash_interpreted)
    again = {"dots": (0, 0), "attention_gate": (1, 0), "attention": (2, 0), "full": (6, 1)}
    products, kernels = _products_and_kernels("none")
    assert kernels == 3  # one forward, two backward
    for remat, (more_products, more_kernels) in again.items():
        counts = _products_and_kernels(remat)
        assert counts == (products + more_products, kernels + more_kernels), remat


def _products_and_kernels(remat):
    """How many of them a gradient has in its layer, of which all are alike."""
    networks = Networks(Actor(QWEN3, remat=remat, attention="splash"), None)
    tokens, mask = _tokens((2, 6)), jnp.ones((2, 6), bool)
    loss = lambda p: jnp.sum(networks.actor_hidden(p, tokens, mask))  # noqa: E731
    program = jax.make_jaxpr(jax.grad(loss))(make_actor_params(networks)).jaxpr
    used, _ = dce_jaxpr(program, [True] * len(program.outvars))
    count = Counter(_primitives(used))
    return count["dot_general"], count["pallas_call"]


def _primitives(jaxpr):
    """The names of all operations, without those inside of kernels."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        if equation.primitive.name != "pallas_call":
            for inner in jaxprs_in_params(equation.params):
                yield from _primitives(inner)


@pytest.mark.parametrize("unroll", [0, 2])
def test_layers_unrolled_change_neither_parameters_nor_gradients(unroll):
    tokens, mask = _tokens((2, 6)), jnp.ones((2, 6), bool)
    plain, unrolled = (Networks(Actor(QWEN3, unroll=n), None) for n in (1, unroll))
    params = make_actor_params(plain)
    key = jax.random.key(0)
    assert_trees_equal(init_actor(plain.actor, key), init_actor(unrolled.actor, key))

    def gradient(networks):
        loss = lambda p: jnp.sum(networks.actor_hidden(p, tokens, mask) ** 2)  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    looped, flat = gradient(plain), gradient(unrolled)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), looped, flat)


def test_bfloat16_compute_stays_near_float32_and_parameters_stay_float32():
    tokens, mask = _tokens((2, 6)), jnp.ones((2, 6), bool)
    plain = Networks(Actor(QWEN3), None)
    half = Networks(Actor(QWEN3, jnp.dtype("bfloat16")), None)
    params = make_actor_params(plain)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert half.actor_hidden(params, tokens, mask).dtype == jnp.bfloat16
    difference = jit_logits(plain)(params, tokens, mask) - jit_logits(half)(params, tokens, mask)
    assert 0 < np.abs(difference).max() < 0.1
