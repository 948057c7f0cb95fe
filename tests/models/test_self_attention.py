from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.models import self_attention as self_attention_module
from asyppo_jax.models.attention import attend
from asyppo_jax.models.causal_blocks import blocked_attention
from asyppo_jax.models.segments import Branches, visible
from asyppo_jax.models.self_attention import (
    cudnn_as_xla,
    cudnn_packed_as_xla,
    implementation_for,
    self_attention,
    splash_interpreted,
)


def _inputs(length, heads=4, kv_heads=2, head_dim=16, batch=2):
    keys = jax.random.split(jax.random.key(0), 4)
    queries = jax.random.normal(keys[0], (batch, length, heads, head_dim))
    k, v = (jax.random.normal(k, (batch, length, kv_heads, head_dim)) for k in keys[1:3])
    # Padding, then two packed sequences, then padding; the second row is one whole sequence.
    places = jnp.arange(length)
    packed = jnp.select([places < 3, places < length // 2, places < length - 2], [0, 1, 2], 0)
    segments = jnp.stack([packed, jnp.ones(length, jnp.int32)])
    return queries, k, v, segments.astype(jnp.int32)


def _whole(queries, keys, values, segments):
    return attend(queries, keys, values, visible(segments, segments))


def _output_and_gradients(form, inputs):
    queries, keys, values, segments = inputs
    real = (segments > 0)[..., None, None]

    def loss(q, k, v):
        mixed = jnp.where(real, form(q, k, v, segments), 0.0)
        return jnp.sum(jnp.sin(mixed)), mixed

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(queries, keys, values)


FORMS = {
    "blocked, length a multiple": (lambda *x: blocked_attention(*x, block=8), 24),
    "blocked, length no multiple": (lambda *x: blocked_attention(*x, block=8), 29),
    "splash, interpreted": (lambda q, k, v, s: splash_interpreted(q, k, v, s, s), 150),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_every_form_agrees_with_plain_attention_forward_and_backward(name):
    form, length = FORMS[name]
    inputs = _inputs(length)
    ours, expected = (_output_and_gradients(f, inputs) for f in (form, _whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def test_rows_of_a_length_agree_in_bfloat16():
    ends = jnp.array([[17], [24]])
    inputs = *_inputs(24)[:3], (jnp.arange(24)[None] < ends).astype(jnp.int32)
    form = lambda q, k, v, s: cudnn_as_xla(q, k, v, s, s)  # noqa: E731
    ours, expected = (_output_and_gradients(f, inputs) for f in (form, _whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=4e-2), ours, expected)


def test_packed_rows_agree_in_bfloat16_whatever_they_are_padded_to():
    inputs = _inputs(150)
    form = lambda q, k, v, s: cudnn_packed_as_xla(q, k, v, s, s)  # noqa: E731
    ours, expected = (_output_and_gradients(f, inputs) for f in (form, _whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=8e-2), ours, expected)


def test_no_array_of_the_blocked_form_is_as_large_as_all_scores():
    inputs = _inputs(64, heads=1, kv_heads=1, batch=2)

    def largest(form):
        gradient = jax.grad(lambda q, *x: jnp.sum(form(q, *x)))
        text = jax.make_jaxpr(gradient)(*inputs).jaxpr
        sizes = [v.aval.size for e in _equations(text) for v in e.outvars]
        return max(sizes)

    scores = 2 * 64 * 64
    assert largest(_whole) >= scores
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
    inputs = _inputs(12)
    np.testing.assert_array_equal(self_attention(*inputs, "xla"), _whole(*inputs))


def _branched(completions, count=2, prompt=70, width=80):
    """Two rows of `count` branches, each of `completions` equal completions and some padding."""
    places = jnp.arange(width)
    branch = jnp.where(places < width - 3, 1 + places * completions // width, 0)
    padded = (jnp.arange(prompt)[None] >= jnp.array([[0], [7]])).astype(jnp.int32)
    segments = jnp.concatenate([padded, jnp.tile(branch, (2, count))], axis=1)
    queries, keys, values, _ = _inputs(segments.shape[1])
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
