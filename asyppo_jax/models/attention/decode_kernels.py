"""Kernels for attention of one new token per row, which read each row's cache to its own length.

"pages" is the Pallas kernel for TPUs that ships with jax; "layers" is cuDNN's for GPUs, through
jax. Both write the new token first, then read. A kernel sees one device's rows and heads.
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
from asyppo_jax.runtime.sharding import map_rows_and_heads

PAGE = 256  # positions of a row that a TPU copies at once
_PAGES = 4  # pages that are attended to at once, at most


def attend_to_pages(
    cache: tuple[Array, Array],
    layer: Int[Array, ""],
    queries: Float[Array, "R 1 H d"],
    keys: Float[Array, "R 1 KV d"],
    values: Float[Array, "R 1 KV d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
) -> tuple[Float[Array, "R 1 H d"], tuple[Array, Array]]:
    """`DecodeBackend.attend`: keys and values of all layers are [KV, L, R, S, d], bfloat16.

    All layers are in one array, because a slice as a kernel's operand would be copied. S is a
    multiple of `PAGE`.
    """
    del longest  # each row is read to its own length
    kv = PartitionSpec("heads", None, "rows", None, None)
    return _on_each_device(_paged, cache, kv, queries, keys, values, lengths, layer)


def _paged(cache, queries, keys, values, lengths, layer):
    from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention

    rows, _, _, head_dim = queries.shape
    written = tuple(
        array.at[:, layer, jnp.arange(rows), lengths].set(new[:, 0].swapaxes(0, 1), mode="drop")
        for array, new in zip(cache, (keys, values), strict=True)
    )
    # The positions of a row are contiguous, and so are its pages.
    count = written[0].shape[3] // PAGE
    pages = (layer * rows + jnp.arange(rows))[:, None] * count + jnp.arange(count)[None]
    num_kv = written[0].shape[0]
    mixed = paged_attention(
        queries[:, 0] * jnp.asarray(1 / math.sqrt(head_dim), queries.dtype),
        *(x.reshape(num_kv, -1, PAGE, head_dim) for x in written),
        lengths + 1,
        pages,
        pages_per_compute_block=positions_read_at_once(count * PAGE) // PAGE,
        megacore_mode="batch" if _cores() == 2 and rows % 2 == 0 else None,
    )
    return mixed[:, None], written


def positions_read_at_once(length: int) -> int:
    """The positions that the kernel reads at once of rows of `length`, a multiple of `PAGE`.

    The end of each row is rounded up to a multiple of it.
    """
    pages = length // PAGE
    return PAGE * next(n for n in range(_PAGES, 0, -1) if pages % n == 0)


def _cores() -> int:
    """Cores of a chip that jax shows as one device; the kernel needs their number to use both."""
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
    """`DecodeBackend.attend`: keys and values of one layer are [R, S, KV, d], bfloat16.

    `implementation="xla"` replaces the kernel, for tests on any platform.
    """
    del longest
    kv = PartitionSpec("rows", None, "heads", None)
    attend = partial(_cudnn, implementation=implementation)
    return _on_each_device(attend, cache, kv, queries, keys, values, lengths)


def _cudnn(cache, queries, keys, values, lengths, *, implementation):
    rows = jnp.arange(len(lengths))
    keys, values = (
        array.at[rows, lengths].set(new[:, 0], mode="drop", unique_indices=True)
        for array, new in zip(cache, (keys, values), strict=True)
    )
    counts = {
        "query_seq_lengths": jnp.ones_like(lengths),
        "key_value_seq_lengths": lengths + 1,
    }
    mixed = attend_by_cudnn(queries, keys, values, implementation, **counts)
    return mixed, (keys, values)


def _on_each_device(
    attend: Callable[..., Any],
    cache: tuple[Array, Array],
    kv: PartitionSpec,
    queries: Array,
    keys: Array,
    values: Array,
    lengths: Array,
    *replicated: Array,
) -> Any:
    """`attend` under shard_map: rows over `data` and heads over `model` where these divide them.

    `kv` is the spec of the cache's arrays, with "rows" and "heads" for those axes.
    """
    token = PartitionSpec("rows", None, "heads", None)
    run = map_rows_and_heads(
        attend,
        (
            (kv, kv),
            token,
            token,
            token,
            PartitionSpec("rows"),
            *[PartitionSpec()] * len(replicated),
        ),
        (token, (kv, kv)),
        len(lengths),
        keys.shape[2],
    )
    return run(cache, queries, keys, values, lengths, *replicated)
