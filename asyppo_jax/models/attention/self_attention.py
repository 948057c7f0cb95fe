"""Causal attention of whole sequences among themselves, in three forms that agree.

`segments` says which tokens belong together: token t sees the tokens s <= t of its own segment.
Padding is segment 0, packed sequences are 1, 2, ...; what padding computes, nobody reads.
`Branches` of completions also see the prompt that they share: every branch is then a row of its
own, whose keys begin with the prompt's.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.causal_blocks import blocked_attention
from asyppo_jax.models.attention.causal_kernels import cudnn, cudnn_packed, splash
from asyppo_jax.models.attention.segments import Branches, Segments, visible
from asyppo_jax.runtime.sharding import by_rows_and_heads

Implementation = Literal["xla", "splash", "cudnn", "cudnn_packed"]

_BLOCK = 64  # queries whose scores exist at one time in the XLA form, or a sixteenth of them all


def implementation_for(platform: str) -> Implementation:
    """The fastest form for a platform: splash on "tpu", cuDNN's on "gpu" or "cuda", else XLA's."""
    forms: dict[str, Implementation] = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}
    return forms.get(platform, "xla")


def self_attention(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B T KV d"],
    values: Float[Array, "B T KV d"],
    segments: Segments,
    implementation: Implementation,
) -> Float[Array, "B T H d"]:
    """softmax(q·k / √d) · v over the tokens that each sees, softmax in float32."""
    if not isinstance(segments, Branches):
        return _attend(queries, keys, values, segments, segments, implementation)
    prompt = (slice(None), slice(segments.prompt))
    own = segments.segments[prompt]
    prompts = _attend(queries[prompt], keys[prompt], values[prompt], own, own, implementation)
    branches = _attend(
        segments.queries(queries),
        segments.keys(keys),
        segments.keys(values),
        segments.queries(segments.segments),
        segments.key_segments(),
        implementation,
    )
    behind = branches.reshape(len(queries), -1, *queries.shape[2:])
    return jnp.concatenate([prompts, behind], axis=1)


def _attend(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B S KV d"],
    values: Float[Array, "B S KV d"],
    segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    implementation: Implementation,
) -> Float[Array, "B T H d"]:
    """Of the last T of S tokens, see `visible`."""
    arrays = queries, keys, values, segments, key_segments
    if implementation in _KERNELS:
        return _sharded(_KERNELS[implementation], *arrays)
    length = queries.shape[1]
    if length <= _BLOCK:
        return attend(*arrays[:3], visible(segments, key_segments))
    return blocked_attention(*arrays[:4], max(_BLOCK, -(-length // 16)), key_segments)


def _sharded(
    form, queries: Array, keys: Array, values: Array, segments: Array, key_segments: Array
) -> Array:
    """`form` under shard_map: a kernel sees one device's rows and heads, and needs no others.

    Where heads cannot be spread over `model`, every device of that axis computes all of them; where
    only the key heads cannot, each query head first gets its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return form(queries, keys, values, segments, key_segments)
    model = mesh.shape["model"]
    if queries.shape[2] % model == 0 and keys.shape[2] % model:
        repeat = queries.shape[2] // keys.shape[2]
        keys, values = (jnp.repeat(x, repeat, axis=2) for x in (keys, values))
    spec, row = PartitionSpec("rows", None, "heads", None), PartitionSpec("rows", None)
    inputs = (spec, spec, spec, row, row)
    run = by_rows_and_heads(form, inputs, spec, queries.shape[0], queries.shape[2])
    return run(queries, keys, values, segments, key_segments)


_KERNELS = {"splash": splash, "cudnn": cudnn, "cudnn_packed": cudnn_packed}
