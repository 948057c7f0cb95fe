"""Grouped-query attention with an explicit mask, and the call of cuDNN's flash attention."""

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
    """softmax(q·k / √d) · v over the visible keys; each key head serves H/KV query heads.

    The softmax is in float32. A query that sees no key (left padding) gets the mean of all values;
    that output is not used.
    """
    batch, length, num_heads, head_dim = queries.shape
    num_kv = keys.shape[2]
    grouped = queries.reshape(batch, length, num_kv, num_heads // num_kv, head_dim)
    scores = jnp.einsum("btkgd,bskd->bkgts", grouped, keys, preferred_element_type=jnp.float32)
    # A large finite number instead of -inf, because a row of -inf would give NaN.
    scores = jnp.where(visible[:, None, None], scores / math.sqrt(head_dim), -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    return jnp.einsum("bkgts,bskd->btkgd", weights, values).reshape(queries.shape)


def attend_by_cudnn(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B S KV d"],
    values: Float[Array, "B S KV d"],
    implementation: Literal["cudnn", "xla"],
    **mask_arguments: Any,
) -> Float[Array, "B T H d"]:
    """cuDNN's flash attention, computed in bfloat16 and returned in the dtype of the queries.

    `mask_arguments` are those arguments of `jax.nn.dot_product_attention` that select the visible
    keys. "xla" runs the same code without the cuDNN kernel, on any platform.
    """
    inputs = (array.astype(jnp.bfloat16) for array in (queries, keys, values))
    out = jax.nn.dot_product_attention(*inputs, implementation=implementation, **mask_arguments)
    return out.astype(queries.dtype)
