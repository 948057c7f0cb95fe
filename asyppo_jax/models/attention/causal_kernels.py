"""Kernels for causal attention over full sequences: splash attention on TPU, cuDNN on GPU."""

import math
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from asyppo_jax.models.attention.attend import attend_by_cudnn
from asyppo_jax.models.attention.segments import visible

# The name of splash's output and of its sums of exponentials, which its backward pass reads.
ATTENTION_OUTPUT = "attention_output"
_TILE = 128  # keys in one tile of cuDNN's kernel
_LANES = 128  # the TPU's vector width; splash needs lengths and head sizes that are multiples of it


def splash(
    queries: Array,
    keys: Array,
    values: Array,
    segments: Array,
    key_segments: Array,
    interpret: bool = False,
) -> Array:
    """Attention by splash, the Pallas kernel in jax, which skips blocks above the causal diagonal.

    The kernel only compares segment numbers; it has no key that every segment sees. A continuation
    after a shared prompt may therefore have one completion only.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, head_dim = queries.shape[1], queries.shape[3]
    num_keys_before, head_padding = keys.shape[1] - length, -head_dim % _LANES

    def prepare(x):  # [B, n, H, d] -> [B, H, n, d], padded to what the kernel can tile
        return _pad_length(jnp.pad(x, (*[(0, 0)] * 3, (0, head_padding))), _LANES).swapaxes(1, 2)

    def segment_ids(x):
        # One completion per continuation: every segment is 1, so VISIBLE_TO_ALL (-1) can become 1.
        return _pad_length(jnp.abs(x), _LANES)

    scaled = prepare(queries) * np.asarray(1 / math.sqrt(head_dim), queries.dtype)
    shape = scaled.shape[2], keys.shape[1] + -keys.shape[1] % _LANES
    causal = masks.CausalMask(shape, offset=num_keys_before)
    mask = masks.MultiHeadMask([causal] * queries.shape[2])
    # The largest block that divides a length, because few large blocks keep the matrix unit busy.
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
        mask,
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENTION_OUTPUT,
        interpret=interpret,
    )
    ids = kernel.SegmentIds(segment_ids(segments), segment_ids(key_segments))
    out: Any = jax.vmap(splash)(scaled, prepare(keys), prepare(values), ids)
    return out.swapaxes(1, 2)[:, :length, :, :head_dim]


splash_interpreted = partial(splash, interpret=True)


def _pad_length(x: Array, size: int) -> Array:
    """[B, n, ...] padded with zeros at the end until n is a multiple of `size`."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), *[(0, 0)] * (x.ndim - 2)))


def cudnn(
    queries: Array,
    keys: Array,
    values: Array,
    segments: Array,
    key_segments: Array,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Array:
    """Attention by cuDNN in bfloat16, for rows with one segment followed by padding.

    The kernel takes a causal mask and each row's length, but no start. The decoder has therefore
    rolled each row until its padding is at the end.
    """
    del key_segments  # equal to `segments`: rows with a shared prompt use `cudnn_packed`
    lengths = jnp.maximum(jnp.sum(segments > 0, axis=1, dtype=jnp.int32), 1)
    counts = {"query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
    return attend_by_cudnn(queries, keys, values, implementation, is_causal=True, **counts)


cudnn_as_xla = partial(cudnn, implementation="xla")  # the same without the kernel, on any platform


def cudnn_packed(
    queries: Array,
    keys: Array,
    values: Array,
    segments: Array,
    key_segments: Array,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Array:
    """Attention by cuDNN in bfloat16, for rows of several segments; the mask is [B, 1, T, S].

    Lengths are padded to multiples of 128, because cuDNN's gradients can be NaN if a masked tile of
    keys is only half full (pytorch/pytorch#196678).
    """
    length, size = queries.shape[1], keys.shape[1]
    mask = jnp.pad(
        visible(segments, key_segments), ((0, 0), (0, -length % _TILE), (0, -size % _TILE))
    )
    queries, keys, values = (_pad_length(x, _TILE) for x in (queries, keys, values))
    return attend_by_cudnn(queries, keys, values, implementation, mask=mask[:, None])[:, :length]


cudnn_packed_as_xla = partial(cudnn_packed, implementation="xla")
