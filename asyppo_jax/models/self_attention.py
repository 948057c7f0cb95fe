"""Causal attention of whole sequences among themselves, in three forms that agree.

`segments` [B, T] says which tokens belong together: token t sees the tokens s <= t of its own
segment. Padding is segment 0, packed sequences are 1, 2, ...; what padding computes, nobody reads.
"""

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention import attend
from asyppo_jax.models.causal_blocks import blocked_attention
from asyppo_jax.sharding import by_rows_and_heads

Implementation = Literal["xla", "splash", "cudnn", "cudnn_packed"]

_BLOCK = 64  # queries whose scores exist at one time in the XLA form, or a sixteenth of them all
_LANES = 128  # the TPU's vector width: splash wants lengths and head sizes in multiples of it


def implementation_for(platform: str) -> Implementation:
    """The fastest form for a platform: splash on "tpu", cuDNN's on "gpu" or "cuda", else XLA's."""
    forms: dict[str, Implementation] = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}
    return forms.get(platform, "xla")


def self_attention(
    queries: Float[Array, "B T H d"],
    keys: Float[Array, "B T KV d"],
    values: Float[Array, "B T KV d"],
    segments: Int[Array, "B T"],
    implementation: Implementation,
) -> Float[Array, "B T H d"]:
    """softmax(q·k / √d) · v over the earlier tokens of the segment, softmax in float32."""
    if implementation in _KERNELS:
        return _sharded(_KERNELS[implementation], queries, keys, values, segments)
    length = queries.shape[1]
    if length <= _BLOCK:
        return attend(queries, keys, values, causal_visibility(segments))
    return blocked_attention(queries, keys, values, segments, max(_BLOCK, -(-length // 16)))


def causal_visibility(segments: Int[Array, "B T"]) -> Array:
    """Token t sees the tokens s <= t of its segment: [B, T, T]."""
    length = segments.shape[-1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    return causal[None] & (segments[:, :, None] == segments[:, None, :])


def _sharded(form, queries: Array, keys: Array, values: Array, segments: Array) -> Array:
    """`form` under shard_map: a kernel sees one device's rows and heads, and needs no others.

    Where heads cannot be spread over `model`, every device of that axis computes all of them; where
    only the key heads cannot, each query head first gets its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return form(queries, keys, values, segments)
    model = mesh.shape["model"]
    if queries.shape[2] % model == 0 and keys.shape[2] % model:
        repeat = queries.shape[2] // keys.shape[2]
        keys, values = (jnp.repeat(x, repeat, axis=2) for x in (keys, values))
    spec = PartitionSpec("rows", None, "heads", None)
    inputs = (spec, spec, spec, PartitionSpec("rows", None))
    run = by_rows_and_heads(form, inputs, spec, queries.shape[0], queries.shape[2])
    return run(queries, keys, values, segments)


def _splash(
    queries: Array, keys: Array, values: Array, segments: Array, interpret: bool = False
) -> Array:
    """Splash attention, the Pallas kernel that ships with jax, block-sparse in the causal mask."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, head_dim = queries.shape[1], queries.shape[3]
    rows, width = -length % _LANES, -head_dim % _LANES

    def prepare(x):  # [B, T, H, d] -> [B, H, T, d], padded to what the kernel can tile
        return jnp.pad(x, ((0, 0), (0, rows), (0, 0), (0, width))).swapaxes(1, 2)

    padded = length + rows
    # The largest block that divides the length: fewer, larger tiles keep the matrix unit busy.
    block = next(size for size in (512, 256, _LANES) if padded % size == 0)
    mask = masks.MultiHeadMask([masks.CausalMask((padded, padded))] * queries.shape[2])
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    splash = kernel.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    ids = jnp.pad(segments, ((0, 0), (0, rows)))
    scaled = prepare(queries) * np.asarray(1 / math.sqrt(head_dim), queries.dtype)
    mixed: Any = jax.vmap(splash)(
        scaled, prepare(keys), prepare(values), kernel.SegmentIds(ids, ids)
    )
    return mixed.swapaxes(1, 2)[:, :length, :, :head_dim]


splash_interpreted = partial(_splash, interpret=True)


def _cudnn(
    queries: Array,
    keys: Array,
    values: Array,
    segments: Array,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Array:
    """cuDNN's flash attention, in bfloat16, of rows that hold one segment each.

    It knows where a row's tokens end, not where they begin, so rows are first turned until their
    padding lies behind; what a causal mask and a length say then is all that there is to say.
    """
    places = jnp.arange(segments.shape[1])[None]
    first = jnp.argmax(segments > 0, axis=1)[:, None]
    lengths = jnp.maximum(jnp.sum(segments > 0, axis=1, dtype=jnp.int32), 1)
    turned = [_turn(x.astype(jnp.bfloat16), places + first) for x in (queries, keys, values)]
    mixed = jax.nn.dot_product_attention(
        *turned,
        is_causal=True,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    return _turn(mixed, places - first).astype(queries.dtype)


turned_xla = partial(_cudnn, implementation="xla")  # all of it but the kernel, for any platform


def _turn(x: Array, places: Array) -> Array:
    """Each row's entries from `places` [B, T], counted around its end."""
    index = (places % x.shape[1])[:, :, None, None]
    return jnp.take_along_axis(x, index, axis=1)


def _cudnn_packed(queries: Array, keys: Array, values: Array, segments: Array) -> Array:
    """The same kernel for rows of several segments, whose mask travels as a bias, [B, 1, T, T]."""
    visible = causal_visibility(segments)[:, None]
    inputs = (x.astype(jnp.bfloat16) for x in (queries, keys, values))
    mixed = jax.nn.dot_product_attention(*inputs, mask=visible, implementation="cudnn")
    return mixed.astype(queries.dtype)


_KERNELS = {"splash": _splash, "cudnn": _cudnn, "cudnn_packed": _cudnn_packed}
