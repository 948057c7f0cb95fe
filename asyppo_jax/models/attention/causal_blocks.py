"""Causal attention in XLA's own operations, a block of queries at a time, forward and backward.

A block's scores exist while it is worked on and are made again in the backward pass from their
log-sum-exp, as in FlashAttention (arXiv 2205.14135); the keys behind a block are never looked at,
which saves almost half of the products. Heads come first in memory, so that every product is one
of plain matrices.
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
    """softmax(q·k / √d) · v over the earlier tokens of the segment, `block` queries at a time.

    The queries are those of the last T of S tokens; `key_segments` (None: `segments`) are those of
    all, see `segments.visible`. Softmax is in float32, the products in the dtype of their inputs.
    The blocks are written out one after another in the program: `block` should leave a dozen or so.
    """
    key_segments = segments if key_segments is None else key_segments
    return _blocked(queries, keys, values, segments, key_segments, block)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _blocked(queries, keys, values, segments, key_segments, block):
    return _forward(queries, keys, values, segments, key_segments, block)[0]


def _forward(queries, keys, values, segments, key_segments, block):
    q, k, v = _by_key_head(queries, keys.shape[2]), _heads_first(keys), _heads_first(values)
    mixed, totals = [], []
    for start, end, seen in _blocks(segments, key_segments, block):
        scores = _scores(
            q[:, :, :, start:end], k[:, :, :seen], segments[:, start:end], key_segments
        )
        peak = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - peak)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = _product("bkms,bksd->bkmd", weights.astype(v.dtype), v[:, :, :seen]) / total
        mixed.append(out.astype(v.dtype))
        totals.append(peak + jnp.log(total))
    out, log_total = jnp.concatenate(mixed, axis=3), jnp.concatenate(totals, axis=3)
    return _tokens_first(out), (q, k, v, segments, key_segments, out, log_total)


def _backward(block, saved, by_out):
    """With P the weights: dV = PᵀdO, dS = P ∘ (dO Vᵀ − Σ dO∘O), dQ = dS K / √d, dK = dSᵀQ / √d."""
    q, k, v, segments, key_segments, out, log_total = saved
    by_out = _by_key_head(by_out, k.shape[1])
    both = by_out.astype(jnp.float32) * out.astype(jnp.float32)
    inner = jnp.sum(both, axis=-1, keepdims=True)
    by_q = []
    by_k, by_v = (jnp.zeros(x.shape, jnp.float32) for x in (k, v))
    for start, end, seen in _blocks(segments, key_segments, block):
        some = (slice(None), slice(None), slice(None), slice(start, end))
        scores = _scores(q[some], k[:, :, :seen], segments[:, start:end], key_segments)
        weights = jnp.exp(scores - log_total[some])
        by_weights = _product("bkmd,bksd->bkms", by_out[some], v[:, :, :seen])
        by_scores = weights * (by_weights - inner[some]) / math.sqrt(q.shape[-1])
        by_scores, weights = by_scores.astype(q.dtype), weights.astype(v.dtype)
        by_q.append(_product("bkms,bksd->bkmd", by_scores, k[:, :, :seen]))
        by_k = by_k.at[:, :, :seen].add(_weight_product(by_scores, q[some]))
        by_v = by_v.at[:, :, :seen].add(_weight_product(weights, by_out[some]))
    by_queries = _tokens_first(jnp.concatenate(by_q, axis=3)).astype(q.dtype)
    by_k, by_v = _heads_first(by_k).astype(k.dtype), _heads_first(by_v).astype(v.dtype)
    return by_queries, by_k, by_v, None, None


_blocked.defvjp(_forward, _backward)


def _blocks(
    segments: Int[Array, "B T"], key_segments: Int[Array, "B S"], block: int
) -> Iterator[tuple[int, int, int]]:
    """Queries from `start` to `end`, and how many keys are not behind them."""
    length = segments.shape[1]
    before = key_segments.shape[1] - length
    for start in range(0, length, block):
        end = min(start + block, length)
        yield start, end, before + end


def _scores(
    q: Float[Array, "B KV G t d"],
    k: Float[Array, "B KV s d"],
    segments: Int[Array, "B t"],
    key_segments: Int[Array, "B S"],
) -> Float[Array, "B KV G t s"]:
    """q·k / √d in float32 where one of the last t of s tokens sees a key, else a finite floor."""
    seen = visible(segments, key_segments[:, : k.shape[2]])[:, None, None]
    scores = _product("bkmd,bksd->bkms", q, k) / math.sqrt(q.shape[-1])
    return jnp.where(seen, scores, -1e30)


def _product(spec: str, x: Array, y: Array) -> Array:
    """One product for all query heads of a key head, [B, KV, G, t, n] with [B, KV, ...]."""
    flat = x.reshape(*x.shape[:2], -1, x.shape[-1])
    out = jnp.einsum(spec, flat, y, preferred_element_type=jnp.float32)
    return out.reshape(*x.shape[:4], -1)


def _weight_product(weights: Array, x: Array) -> Float[Array, "B KV S d"]:
    flat, rows = (y.reshape(*y.shape[:2], -1, y.shape[-1]) for y in (weights, x))
    return jnp.einsum("bkms,bkmd->bksd", flat, rows, preferred_element_type=jnp.float32)


def _heads_first(x: Float[Array, "B T KV d"]) -> Float[Array, "B KV T d"]:
    return x.swapaxes(1, 2)


def _by_key_head(x: Float[Array, "B T H d"], num_kv: int) -> Float[Array, "B KV G T d"]:
    batch, length, num_heads, width = x.shape
    split = x.reshape(batch, length, num_kv, num_heads // num_kv, width)
    return split.transpose(0, 2, 3, 1, 4)


def _tokens_first(x: Float[Array, "B KV G T d"]) -> Float[Array, "B T H d"]:
    batch, num_kv, group, length, width = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, length, num_kv * group, width)
