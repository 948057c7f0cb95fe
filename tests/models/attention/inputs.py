"""Inputs and reference results for the tests of attention."""

import jax
import jax.numpy as jnp

from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.segments import visible


def attention_inputs(length, heads=4, kv_heads=2, head_dim=16, batch=2):
    keys = jax.random.split(jax.random.key(0), 4)
    queries = jax.random.normal(keys[0], (batch, length, heads, head_dim))
    k, v = (jax.random.normal(k, (batch, length, kv_heads, head_dim)) for k in keys[1:3])
    # First row: padding, two packed sequences, padding. Second row: one sequence of full length.
    index = jnp.arange(length)
    packed = jnp.select([index < 3, index < length // 2, index < length - 2], [0, 1, 2], 0)
    segments = jnp.stack([packed, jnp.ones(length, jnp.int32)])
    return queries, k, v, segments.astype(jnp.int32)


def plain_attention(queries, keys, values, segments):
    return attend(queries, keys, values, visible(segments, segments))


def output_and_gradients(attention, inputs):
    queries, keys, values, segments = inputs
    real = (segments > 0)[..., None, None]

    def loss(q, k, v):
        out = jnp.where(real, attention(q, k, v, segments), 0.0)
        return jnp.sum(jnp.sin(out)), out

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(queries, keys, values)
