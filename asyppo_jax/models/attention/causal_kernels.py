"""The kernels for causal attention of whole sequences: splash on TPU, cuDNN's on GPU."""

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from asyppo_jax.models.attention.attend import attend_by_cudnn
from asyppo_jax.models.attention.segments import visible

_TILE = 128  # keys of one tile of cuDNN's
_LANES = 128  # the TPU's vector width: splash wants lengths and head sizes in multiples of it


def splash(
    queries: Array,
    keys: Array,
    values: Array,
    segments: Array,
    key_segments: Array,
    interpret: bool = False,
) -> Array:
    """Splash attention, the Pallas kernel that ships with jax, block-sparse in the causal mask.

    It compares segments and knows no key that is seen by all: behind a shared prompt, one
    completion a branch.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, head_dim = queries.shape[1], queries.shape[3]
    before, width = keys.shape[1] - length, -head_dim % _LANES

    def prepare(x):  # [B, n, H, d] -> [B, H, n, d], padded to what the kernel can tile
        return _in_tiles(jnp.pad(x, (*[(0, 0)] * 3, (0, width))), _LANES).swapaxes(1, 2)

    def ids(x):
        return _in_tiles(jnp.abs(x), _LANES)  # EVERY is the only one, 1

    scaled = prepare(queries) * np.asarray(1 / math.sqrt(head_dim), queries.dtype)
    shape = scaled.shape[2], keys.shape[1] + -keys.shape[1] % _LANES
    mask = masks.MultiHeadMask([masks.CausalMask(shape, offset=before)] * queries.shape[2])
    # The largest block that divides a length: fewer, larger tiles keep the matrix unit busy.
    q, kv = (next(size for size in (512, 256, _LANES) if n % size == 0) for n in shape)
    sizes = kernel.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=kv,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=kv,
        block_q_dq=q,
        block_kv_dq=kv,
    )
    splash = kernel.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    mixed: Any = jax.vmap(splash)(
        scaled, prepare(keys), prepare(values), kernel.SegmentIds(ids(segments), ids(key_segments))
    )
    return mixed.swapaxes(1, 2)[:, :length, :, :head_dim]


splash_interpreted = partial(splash, interpret=True)


def _in_tiles(x: Array, size: int) -> Array:
    """[B, n, ...] with zeros behind, until n is a multiple of `size`."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), *[(0, 0)] * (x.ndim - 2)))


def cudnn(
    queries: Array,
    keys: Array,
    values: Array,
    segments: Array,
    key_segments: Array,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Array:
    """cuDNN's flash attention, in bfloat16, of rows that begin with their one segment.

    It knows where a row's tokens end, not where they begin, so the decoder has turned its rows
    until their padding lies behind; a causal mask and a length then say all that there is to say.
    """
    del key_segments  # the same: branches behind a shared prompt take the other form
    lengths = jnp.maximum(jnp.sum(segments > 0, axis=1, dtype=jnp.int32), 1)
    counts = {"query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
    return attend_by_cudnn(queries, keys, values, implementation, is_causal=True, **counts)


cudnn_as_xla = partial(cudnn, implementation="xla")  # all of it but the kernel, for any platform


def cudnn_packed(
    queries: Array,
    keys: Array,
    values: Array,
    segments: Array,
    key_segments: Array,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Array:
    """The same kernel for rows of several segments, whose mask travels as a bias, [B, 1, T, S].

    Lengths are made multiples of 128: of half a tile of keys behind a mask cuDNN's gradients can be
    NaN (pytorch/pytorch#196678).
    """
    length, size = queries.shape[1], keys.shape[1]
    seen = jnp.pad(
        visible(segments, key_segments), ((0, 0), (0, -length % _TILE), (0, -size % _TILE))
    )
    queries, keys, values = (_in_tiles(x, _TILE) for x in (queries, keys, values))
    return attend_by_cudnn(queries, keys, values, implementation, mask=seen[:, None])[:, :length]


cudnn_packed_as_xla = partial(cudnn_packed, implementation="xla")
