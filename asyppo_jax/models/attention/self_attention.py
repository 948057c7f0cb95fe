"""Causal self-attention over full sequences, with several backends that compute the same result.

`segments` gives each token's segment: token t sees the tokens s <= t of its own segment. Padding is
segment 0, packed sequences are 1, 2, ...; the outputs at padding are not used. In `SharedPrompts`,
completions also see the prompt that they share: each continuation becomes a row of its own, and its
keys start with the keys of the prompt.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.causal_blocks import blocked_attention
from asyppo_jax.models.attention.causal_kernels import cudnn, cudnn_packed, splash
from asyppo_jax.models.attention.segments import Segments, SharedPrompts, visible
from asyppo_jax.runtime.sharding import map_rows_and_heads

AttentionBackend = Literal["xla", "splash", "cudnn", "cudnn_packed"]

# Minimum number of queries per block of the "xla" backend. Long sequences have sixteen blocks.
_BLOCK = 64


def attention_backend_for(platform: str) -> AttentionBackend:
    """The fastest backend: "splash" on "tpu", "cudnn" on "gpu" or "cuda", "xla" elsewhere."""
    backends: dict[str, AttentionBackend] = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}
    return backends.get(platform, "xla")


def self_attention(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B T KV d"],
    values: Float[Array, "B T KV d"],
    segments: Segments,
    backend: AttentionBackend,
) -> Float[Array, "B T H d"]:
    """softmax(q·k / √d) · v over the tokens that each token sees; the softmax is in float32."""
    if not isinstance(segments, SharedPrompts):
        return _attend(queries, keys, values, segments, segments, backend)
    prompt = (slice(None), slice(segments.prompt_length))
    prompt_segments = segments.segments[prompt]
    prompt_arrays = queries[prompt], keys[prompt], values[prompt], prompt_segments, prompt_segments
    prompt_out = _attend(*prompt_arrays, backend)
    continuation_out = _attend(
        segments.queries(queries),
        segments.keys(keys),
        segments.keys(values),
        segments.queries(segments.segments),
        segments.key_segments(),
        backend,
    )
    continuation_out = continuation_out.reshape(len(queries), -1, *queries.shape[2:])
    return jnp.concatenate([prompt_out, continuation_out], axis=1)


def _attend(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B S KV d"],
    values: Float[Array, "B S KV d"],
    segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    backend: AttentionBackend,
) -> Float[Array, "B T H d"]:
    """Attention of the last T of S tokens, see `visible`."""
    arrays = queries, keys, values, segments, key_segments
    if backend in _KERNELS:
        return _sharded(_KERNELS[backend], *arrays)
    length = queries.shape[1]
    if length <= _BLOCK:
        return attend(*arrays[:3], visible(segments, key_segments))
    return blocked_attention(*arrays[:4], max(_BLOCK, -(-length // 16)), key_segments)


def _sharded(
    kernel, queries: Array, keys: Array, values: Array, segments: Array, key_segments: Array
) -> Array:
    """The result of `kernel` under shard_map: each device computes its own rows and heads.

    If the size of the mesh axis `model` does not divide the number of query heads, every device on
    that axis computes all heads. If it divides the query heads but not the key heads, the key heads
    are repeated, one for each query head.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel(queries, keys, values, segments, key_segments)
    model = mesh.shape["model"]
    if queries.shape[2] % model == 0 and keys.shape[2] % model:
        repeat = queries.shape[2] // keys.shape[2]
        keys, values = (jnp.repeat(x, repeat, axis=2) for x in (keys, values))
    spec, row = PartitionSpec("rows", None, "heads", None), PartitionSpec("rows", None)
    inputs = (spec, spec, spec, row, row)
    run = map_rows_and_heads(kernel, inputs, spec, queries.shape[0], queries.shape[2])
    return run(queries, keys, values, segments, key_segments)


_KERNELS = {"splash": splash, "cudnn": cudnn, "cudnn_packed": cudnn_packed}
