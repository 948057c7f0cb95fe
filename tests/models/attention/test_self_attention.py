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
from asyppo_jax.models.attention.segments import Branches, visible
from asyppo_jax.models.attention.self_attention import implementation_for, self_attention
from tests.models.attention.inputs import attention_inputs, output_and_gradients, plain_attention

FORMS = {
    "blocked, length a multiple": (lambda *x: blocked_attention(*x, block=8), 24),
    "blocked, length no multiple": (lambda *x: blocked_attention(*x, block=8), 29),
    "splash, interpreted": (lambda q, k, v, s: splash_interpreted(q, k, v, s, s), 150),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_every_form_agrees_with_plain_attention_forward_and_backward(name):
    form, length = FORMS[name]
    inputs = attention_inputs(length)
    ours, expected = (output_and_gradients(f, inputs) for f in (form, plain_attention))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def test_no_array_of_the_blocked_form_is_as_large_as_all_scores():
    inputs = attention_inputs(64, heads=1, kv_heads=1, batch=2)

    def largest(form):
        gradient = jax.grad(lambda q, *x: jnp.sum(form(q, *x)))
        text = jax.make_jaxpr(gradient)(*inputs).jaxpr
        sizes = [v.aval.size for e in _equations(text) for v in e.outvars]
        return max(sizes)

    scores = 2 * 64 * 64
    assert largest(plain_attention) >= scores
    assert largest(lambda *x: blocked_attention(*x, block=8)) < scores


def _equations(jaxpr: Any):  # pyright would find values without a size: jax 0.12 declares none
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_the_form_follows_the_platform():
    assert [implementation_for(p) for p in ("tpu", "gpu", "cpu")] == ["splash", "cudnn", "xla"]


def test_the_short_xla_form_is_plain_attention():
    inputs = attention_inputs(12)
    np.testing.assert_array_equal(self_attention(*inputs, "xla"), plain_attention(*inputs))


def _branched(completions, count=2, prompt=70, width=80):
    """Two rows of `count` branches, each of `completions` equal completions and some padding."""
    places = jnp.arange(width)
    branch = jnp.where(places < width - 3, 1 + places * completions // width, 0)
    padded = (jnp.arange(prompt)[None] >= jnp.array([[0], [7]])).astype(jnp.int32)
    segments = jnp.concatenate([padded, jnp.tile(branch, (2, count))], axis=1)
    queries, keys, values, _ = attention_inputs(segments.shape[1])
    return queries, keys, values, Branches(segments.astype(jnp.int32), prompt, count)


def _each_alone(queries, keys, values, branches):
    """Plain attention of every branch behind its own copy of the prompt."""
    segments = branches.segments
    width = (queries.shape[1] - branches.prompt) // branches.count
    prompt = jnp.arange(branches.prompt)
    own = segments[:, prompt]
    pieces = [attend(queries[:, prompt], keys[:, prompt], values[:, prompt], visible(own, own))]
    for i in range(branches.count):
        at = jnp.arange(branches.prompt + i * width, branches.prompt + (i + 1) * width)
        both = jnp.concatenate([prompt, at])
        same = segments[:, at, None] == segments[:, None, at]
        same = same & jnp.tril(jnp.ones((1, width, width), bool))
        seen = jnp.broadcast_to((own > 0)[:, None], (2, width, branches.prompt))
        seen = jnp.concatenate([seen, same], axis=2)
        pieces.append(attend(queries[:, at], keys[:, both], values[:, both], seen))
    return jnp.concatenate(pieces, axis=1)


@pytest.mark.parametrize(
    ("form", "completions"),
    [("xla", 1), ("xla", 3), ("splash", 1), ("cudnn_packed", 3)],
    ids=str,
)
def test_branches_behind_a_prompt_agree_with_each_behind_its_own(form, completions, monkeypatch):
    monkeypatch.setitem(self_attention_module._KERNELS, "splash", splash_interpreted)
    monkeypatch.setitem(self_attention_module._KERNELS, "cudnn_packed", cudnn_packed_as_xla)
    queries, keys, values, branches = _branched(completions)
    real = (branches.segments > 0)[..., None, None]

    def output_and_gradients(attention):
        def loss(q, k, v):
            mixed = jnp.where(real, attention(q, k, v, branches), 0.0)
            return jnp.sum(jnp.sin(mixed)), mixed

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(queries, keys, values)

    ours = output_and_gradients(lambda q, k, v, s: self_attention(q, k, v, s, form))
    expected = output_and_gradients(_each_alone)
    close = 8e-2 if form == "cudnn_packed" else 1e-5  # of products in bfloat16
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=close), ours, expected)
