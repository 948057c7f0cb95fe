"""Rotary embedding and grouped-query attention over an explicit key-value cache."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attend(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B S KV d"],
    values: Float[Array, "B S KV d"],
    visible: Bool[Array, "B T S"],
) -> Float[Array, "B T H d"]:
    """softmax(q·k / √d) · v over the visible keys, softmax in float32; H/KV queries share a key.

    A query that sees no key (left padding) gets an average of all values, which nothing reads.
    """
    batch, length, num_heads, head_dim = queries.shape
    num_kv = keys.shape[2]
    grouped = queries.reshape(batch, length, num_kv, num_heads // num_kv, head_dim)
    scores = jnp.einsum("btkgd,bskd->bkgts", grouped, keys, preferred_element_type=jnp.float32)
    # A finite floor, not -inf: a row without a visible key must not become NaN.
    scores = jnp.where(visible[:, None, None], scores / math.sqrt(head_dim), -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("bkgts,bskd->btkgd", weights, values).reshape(queries.shape)


def attend_by_cudnn(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B S KV d"],
    values: Float[Array, "B S KV d"],
    implementation: Literal["cudnn", "xla"],
    **seen: Any,
) -> Float[Array, "B T H d"]:
    """cuDNN's flash attention, in bfloat16, given in the dtype of the queries.

    `seen` says which keys, in the words of `jax.nn.dot_product_attention`. "xla" is all of it but
    the kernel, for any platform.
    """
    arrays = (x.astype(jnp.bfloat16) for x in (queries, keys, values))
    mixed = jax.nn.dot_product_attention(*arrays, implementation=implementation, **seen)
    return mixed.astype(queries.dtype)
