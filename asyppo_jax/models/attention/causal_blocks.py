"""Causal attention in plain XLA operations, one block of queries at a time, forward and backward.

Only one block's scores exist at a time. The backward pass recomputes them from the stored
log-sum-exp, as FlashAttention does (arXiv 2205.14135). Keys after a block are skipped, which saves
almost half of the work. The head axes come first in memory, so that every product is a batched
product of plain matrices.
"""

import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention.segments import visible


def blocked_attention(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B S KV d"],
    values: Float[Array, "B S KV d"],
    segments: Int[Array, "B T"],
    block: int,
    key_segments: Int[Array, "B S"] | None = None,
) -> Float[Array, "B T H d"]:
    """softmax(q·k / √d) · v over each token and the earlier tokens of its segment.

    The queries belong to the last T of S tokens. `key_segments` are the segments of all S tokens
    (None: `segments`), see `segments.visible`. The softmax is in float32, the products in the dtype
    of their inputs. `block` is the number of queries per block. The loop over blocks is unrolled in
    the compiled program, so choose `block` such that there are about a dozen.
    """
    key_segments = segments if key_segments is None else key_segments
    return _blocked(queries, keys, values, segments, key_segments, block)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _blocked(queries, keys, values, segments, key_segments, block):
    return _forward(queries, keys, values, segments, key_segments, block)[0]


def _forward(queries, keys, values, segments, key_segments, block):
    q, k, v = _group_by_key_head(queries, keys.shape[2]), _heads_first(keys), _heads_first(values)
    outputs, log_totals = [], []
    for start, end, num_keys in _blocks(segments, key_segments, block):
        scores = _scores(
            q[:, :, :, start:end], k[:, :, :num_keys], segments[:, start:end], key_segments
        )
        maximum = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - maximum)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = _product("bkms,bksd->bkmd", weights.astype(v.dtype), v[:, :, :num_keys]) / total
        outputs.append(out.astype(v.dtype))
        log_totals.append(maximum + jnp.log(total))
    out, log_total = jnp.concatenate(outputs, axis=3), jnp.concatenate(log_totals, axis=3)
    return _tokens_first(out), (q, k, v, segments, key_segments, out, log_total)


def _backward(block, residuals, grad_out):
    """With P the weights: dV = PᵀdO, dS = P ∘ (dO Vᵀ − Σ dO∘O), dQ = dS K / √d, dK = dSᵀQ / √d."""
    q, k, v, segments, key_segments, out, log_total = residuals
    grad_out = _group_by_key_head(grad_out, k.shape[1])
    elementwise = grad_out.astype(jnp.float32) * out.astype(jnp.float32)
    inner = jnp.sum(elementwise, axis=-1, keepdims=True)
    grad_q = []
    grad_k, grad_v = (jnp.zeros(x.shape, jnp.float32) for x in (k, v))
    for start, end, num_keys in _blocks(segments, key_segments, block):
        in_block = (slice(None), slice(None), slice(None), slice(start, end))
        scores = _scores(q[in_block], k[:, :, :num_keys], segments[:, start:end], key_segments)
        weights = jnp.exp(scores - log_total[in_block])
        grad_weights = _product("bkmd,bksd->bkms", grad_out[in_block], v[:, :, :num_keys])
        grad_scores = weights * (grad_weights - inner[in_block]) / math.sqrt(q.shape[-1])
        grad_scores, weights = grad_scores.astype(q.dtype), weights.astype(v.dtype)
        grad_q.append(_product("bkms,bksd->bkmd", grad_scores, k[:, :, :num_keys]))
        grad_k = grad_k.at[:, :, :num_keys].add(_transposed_product(grad_scores, q[in_block]))
        grad_v = grad_v.at[:, :, :num_keys].add(_transposed_product(weights, grad_out[in_block]))
    grad_queries = _tokens_first(jnp.concatenate(grad_q, axis=3)).astype(q.dtype)
    grad_k, grad_v = _heads_first(grad_k).astype(k.dtype), _heads_first(grad_v).astype(v.dtype)
    return grad_queries, grad_k, grad_v, None, None


_blocked.defvjp(_forward, _backward)


def _blocks(
    segments: Int[Array, "B T"], key_segments: Int[Array, "B S"], block: int
) -> Iterator[tuple[int, int, int]]:
    """For each block: its first query, the end of its queries, the number of keys up to there."""
    length = segments.shape[1]
    num_keys_before = key_segments.shape[1] - length
    for start in range(0, length, block):
        end = min(start + block, length)
        yield start, end, num_keys_before + end


def _scores(
    q: Float[Array, "B KV G t d"],
    k: Float[Array, "B KV s d"],
    segments: Int[Array, "B t"],
    key_segments: Int[Array, "B S"],
) -> Float[Array, "B KV G t s"]:
    """q·k / √d in float32 for the last t of s tokens; -1e30 where a query does not see a key."""
    mask = visible(segments, key_segments[:, : k.shape[2]])[:, None, None]
    scores = _product("bkmd,bksd->bkms", q, k) / math.sqrt(q.shape[-1])
    return jnp.where(mask, scores, -1e30)


def _product(spec: str, x: Array, y: Array) -> Array:
    """One product for all query heads that share a key head: [B, KV, G, t, n] with [B, KV, ...]."""
    flat = x.reshape(*x.shape[:2], -1, x.shape[-1])
    out = jnp.einsum(spec, flat, y, preferred_element_type=jnp.float32)
    return out.reshape(*x.shape[:4], -1)


def _transposed_product(weights: Array, x: Array) -> Float[Array, "B KV S d"]:
    flat_weights, flat_x = (y.reshape(*y.shape[:2], -1, y.shape[-1]) for y in (weights, x))
    return jnp.einsum("bkms,bkmd->bksd", flat_weights, flat_x, preferred_element_type=jnp.float32)


def _heads_first(x: Float[Array, "B T KV d"]) -> Float[Array, "B KV T d"]:
    return x.swapaxes(1, 2)


def _group_by_key_head(x: Float[Array, "B T H d"], num_kv: int) -> Float[Array, "B KV G T d"]:
    batch, length, num_heads, width = x.shape
    split = x.reshape(batch, length, num_kv, num_heads // num_kv, width)
    return split.transpose(0, 2, 3, 1, 4)


def _tokens_first(x: Float[Array, "B KV G T d"]) -> Float[Array, "B T H d"]:
    batch, num_kv, group, length, width = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, length, num_kv * group, width)
