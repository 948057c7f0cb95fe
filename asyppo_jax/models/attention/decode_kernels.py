"""Attention of one new token a row to the row's cache, by kernels that read only so far as it goes.

Both write the new token first, then read: "pages" is for TPUs, the Pallas kernel that ships with
jax; "layers" for GPUs, cuDNN's, through jax. Kernels see one device's rows and heads.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from asyppo_jax.models.attention.attend import attend_by_cudnn
from asyppo_jax.runtime.sharding import by_rows_and_heads

PAGE = 256  # places of a row that a TPU copies at one time
_PAGES = 4  # that are attended to at one time, at the most


def attend_to_pages(
    cache: tuple[Array, Array],
    layer: Int[Array, ""],
    queries: Float[Array, "R 1 H d"],
    keys: Float[Array, "R 1 KV d"],
    values: Float[Array, "R 1 KV d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
) -> tuple[Float[Array, "R 1 H d"], tuple[Array, Array]]:
    """Writes each row's new token at place lengths[r] of a layer; softmax(q·k / √d) · v up to it.

    The cache's keys and values are [KV, L, R, S, d], of all layers in one array, since a kernel's
    operand that is a slice would be copied; S is a multiple of `PAGE`. The products are bfloat16's.
    """
    del longest  # each row is read to its own length
    kept = PartitionSpec("heads", None, "rows", None, None)
    return _local(_paged, cache, kept, queries, keys, values, lengths, layer)


def _paged(cache, queries, keys, values, lengths, layer):
    from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention

    rows, _, _, head_dim = queries.shape
    written = tuple(
        whole.at[:, layer, jnp.arange(rows), lengths].set(new[:, 0].swapaxes(0, 1), mode="drop")
        for whole, new in zip(cache, (keys, values), strict=True)
    )
    # A row's places lie together, and so do its pages.
    count = written[0].shape[3] // PAGE
    pages = (layer * rows + jnp.arange(rows))[:, None] * count + jnp.arange(count)[None]
    num_kv = written[0].shape[0]
    mixed = paged_attention(
        queries[:, 0] * jnp.asarray(1 / math.sqrt(head_dim), queries.dtype),
        *(x.reshape(num_kv, -1, PAGE, head_dim) for x in written),
        lengths + 1,
        pages,
        pages_per_compute_block=places_read_together(count * PAGE) // PAGE,
        megacore_mode="batch" if _cores() == 2 and rows % 2 == 0 else None,
    )
    return mixed[:, None], written


def places_read_together(length: int) -> int:
    """Of a row of `length` places, a multiple of `PAGE`: a row's end is rounded up to these."""
    pages = length // PAGE
    return PAGE * next(n for n in range(_PAGES, 0, -1) if pages % n == 0)


def _cores() -> int:
    """Cores of a chip that jax shows as one device: the kernel must be told to use both."""
    device: Any = jax.sharding.get_abstract_mesh().abstract_device
    return 1 if device is None or device.num_cores is None else device.num_cores


def attend_with_cudnn(
    cache: tuple[Array, Array],
    queries: Float[Array, "R 1 H d"],
    keys: Float[Array, "R 1 KV d"],
    values: Float[Array, "R 1 KV d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> tuple[Float[Array, "R 1 H d"], tuple[Array, Array]]:
    """As `attend_to_pages`, in bfloat16; the cache's keys and values are one layer's [R, S, KV, d].

    With `implementation="xla"`, all of it but the kernel, for any platform.
    """
    del longest
    kept = PartitionSpec("rows", None, "heads", None)
    attend = partial(_cudnn, implementation=implementation)
    return _local(attend, cache, kept, queries, keys, values, lengths)


def _cudnn(cache, queries, keys, values, lengths, *, implementation):
    rows = jnp.arange(len(lengths))
    keys, values = (
        whole.at[rows, lengths].set(new[:, 0], mode="drop", unique_indices=True)
        for whole, new in zip(cache, (keys, values), strict=True)
    )
    counts = {
        "query_seq_lengths": jnp.ones_like(lengths),
        "key_value_seq_lengths": lengths + 1,
    }
    mixed = attend_by_cudnn(queries, keys, values, implementation, **counts)
    return mixed, (keys, values)


def _local(
    attend: Callable[..., Any],
    cache: tuple[Array, Array],
    kept: PartitionSpec,
    queries: Array,
    keys: Array,
    values: Array,
    lengths: Array,
    *whole: Array,
) -> Any:
    """`attend` under shard_map, rows over `data` and heads over `model` where these divide them.

    `kept` is the cache's, with "rows" and "heads" for those axes.
    """
    token = PartitionSpec("rows", None, "heads", None)
    run = by_rows_and_heads(
        attend,
        ((kept, kept), token, token, token, PartitionSpec("rows"), *[PartitionSpec()] * len(whole)),
        (token, (kept, kept)),
        len(lengths),
        keys.shape[2],
    )
    return run(cache, queries, keys, values, lengths, *whole)
