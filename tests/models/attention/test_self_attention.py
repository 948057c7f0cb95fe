from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models.attention import self_attention as self_attention_module
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.causal_blocks import blocked_attention
from asyppo_jax.models.attention.causal_kernels import (
    cudnn_packed_as_xla,
    splash_interpreted,
)
from asyppo_jax.models.attention.segments import SharedPrompts, visible
from asyppo_jax.models.attention.self_attention import attention_backend_for, self_attention
from tests.models.attention.inputs import attention_inputs, output_and_gradients, plain_attention

BACKENDS = {
    "blocked, length a multiple": (lambda *x: blocked_attention(*x, block=8), 24),
    "blocked, length no multiple": (lambda *x: blocked_attention(*x, block=8), 29),
    "splash, interpreted": (lambda q, k, v, s: splash_interpreted(q, k, v, s, s), 150),
}


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_backend_agrees_with_plain_attention_forward_and_backward(name):
    backend, length = BACKENDS[name]
    inputs = attention_inputs(length)
    ours, expected = (output_and_gradients(f, inputs) for f in (backend, plain_attention))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def test_no_array_of_blocked_attention_is_as_large_as_all_scores():
    inputs = attention_inputs(64, heads=1, kv_heads=1, batch=2)

    def largest(attention):
        gradient = jax.grad(lambda q, *x: jnp.sum(attention(q, *x)))
        jaxpr = jax.make_jaxpr(gradient)(*inputs).jaxpr
        sizes = [v.aval.size for e in _equations(jaxpr) for v in e.outvars]
        return max(sizes)

    num_scores = 2 * 64 * 64
    assert largest(plain_attention) >= num_scores
    assert largest(lambda *x: blocked_attention(*x, block=8)) < num_scores


def _equations(jaxpr: Any):  # pyright would find values without a size: jax 0.12 declares none
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_the_backend_depends_on_the_platform():
    assert [attention_backend_for(p) for p in ("tpu", "gpu", "cpu")] == ["splash", "cudnn", "xla"]


def test_the_xla_backend_is_plain_attention_for_short_sequences():
    inputs = attention_inputs(12)
    np.testing.assert_array_equal(self_attention(*inputs, "xla"), plain_attention(*inputs))


def _shared_prompts(completions, count=2, prompt=70, width=80):
    """Two rows of `count` continuations, each of `completions` completions of one length."""
    index = jnp.arange(width)
    continuation = jnp.where(index < width - 3, 1 + index * completions // width, 0)
    padded = (jnp.arange(prompt)[None] >= jnp.array([[0], [7]])).astype(jnp.int32)
    segments = jnp.concatenate([padded, jnp.tile(continuation, (2, count))], axis=1)
    queries, keys, values, _ = attention_inputs(segments.shape[1])
    return queries, keys, values, SharedPrompts(segments.astype(jnp.int32), prompt, count)


def _one_by_one(queries, keys, values, continuations):
    """Plain attention of each continuation with its own copy of the prompt."""
    segments = continuations.segments
    width = (queries.shape[1] - continuations.prompt_length) // continuations.count
    prompt = jnp.arange(continuations.prompt_length)
    prompt_segments = segments[:, prompt]
    prompt_mask = visible(prompt_segments, prompt_segments)
    outputs = [attend(queries[:, prompt], keys[:, prompt], values[:, prompt], prompt_mask)]
    for i in range(continuations.count):
        continuation = jnp.arange(
            continuations.prompt_length + i * width, continuations.prompt_length + (i + 1) * width
        )
        prompt_and_continuation = jnp.concatenate([prompt, continuation])
        in_continuation = segments[:, continuation, None] == segments[:, None, continuation]
        in_continuation = in_continuation & jnp.tril(jnp.ones((1, width, width), bool))
        in_prompt = (prompt_segments > 0)[:, None]
        in_prompt = jnp.broadcast_to(in_prompt, (2, width, continuations.prompt_length))
        mask = jnp.concatenate([in_prompt, in_continuation], axis=2)
        key_values = keys[:, prompt_and_continuation], values[:, prompt_and_continuation]
        outputs.append(attend(queries[:, continuation], *key_values, mask))
    return jnp.concatenate(outputs, axis=1)


@pytest.mark.parametrize(
    ("backend", "completions"),
    [("xla", 1), ("xla", 3), ("splash", 1), ("cudnn_packed", 3)],
    ids=str,
)
def test_completions_of_a_shared_prompt_equal_completions_with_their_own_prompts(
    backend, completions, monkeypatch
):
    monkeypatch.setitem(self_attention_module._KERNELS, "splash", splash_interpreted)
    monkeypatch.setitem(self_attention_module._KERNELS, "cudnn_packed", cudnn_packed_as_xla)
    queries, keys, values, continuations = _shared_prompts(completions)
    real = (continuations.segments > 0)[..., None, None]

    def output_and_gradients(attention):
        def loss(q, k, v):
            out = jnp.where(real, attention(q, k, v, continuations), 0.0)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(queries, keys, values)

    ours = output_and_gradients(lambda q, k, v, s: self_attention(q, k, v, s, backend))
    expected = output_and_gradients(_one_by_one)
    atol = 8e-2 if backend == "cudnn_packed" else 1e-5  # cuDNN computes in bfloat16
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), ours, expected)
