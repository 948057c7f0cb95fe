"""Backends for attention of one new token per row to the row's KV cache.

Position s of a row's cache has the keys and values of the row's token s, so a row sees its first
`length` positions and nothing else. All backends give the same result. They read at most up to
the longest row, not the full length of the cache.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.config import ConfigError
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.decode_blocks import (
    attend_to_blocks,
    copy_array,
    copy_blocks,
    make_blocks,
)
from asyppo_jax.models.attention.decode_kernels import PAGE, attend_to_pages, attend_with_cudnn
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.runtime.sharding import constrain

# A pytree of arrays; a tuple with one entry per layer where the backend is `per_layer`.
Cache = tuple[Any, ...]

_WINDOWS = 4  # a dense cache is read in quarters, as many as the longest row needs


class DecodeBackend(NamedTuple):
    """A layout of the KV cache and the functions on it.

    `make(keys, values, length, allocate=None)`: a cache for rows of up to `length` positions that
    starts with these [L, R, P, KV, head_dim]; with `allocate` it has room for that many positions
    only, and serves as the `source` of `copy`.
    `take(cache, rows)`: the cache of these rows in this order.
    `copy(cache, to, source, row, enabled=True)`: `cache` with row `row` of `source` copied to its
    row `to`; `source` may have fewer positions. Unchanged if `enabled` is false.
    `attend(layer_cache, q, k, v, lengths, longest)` if the backend is `per_layer`, else
    `attend(cache, layer, q, k, v, lengths, longest)`: writes each row's new token at position
    lengths[r] and returns softmax(q·k / √d) · v up to it, [R, 1, H, head_dim], and the cache.
    Backends `for_small_batch` also take `prompts`, the keys and values of shared prompts.
    """

    name: str
    make: Callable[..., Cache]
    take: Callable[[Cache, Int[Array, " n"]], Cache]
    copy: Callable[..., Cache]
    attend: Callable[..., tuple[Array, Any]]
    # Each layer has arrays of its own, and the layers are compiled one by one.
    per_layer: bool
    # For CPUs: weights are stored with the output axis first (`small_batch_dense`), a prompt is
    # stored once for its group, and decoding continues in smaller programs as rows end.
    for_small_batch: bool
    # What the backend needs and this model does not have; "" if it supports the model.
    unmet_requirement: Callable[[ModelConfig, jnp.dtype], str] = lambda config, dtype: ""


def attend_to_dense(
    cache: Cache,
    layer: Int[Array, ""],
    queries: Float[Array, "R 1 H d"],
    keys: Float[Array, "R 1 KV d"],
    values: Float[Array, "R 1 KV d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
) -> tuple[Float[Array, "R 1 H d"], Cache]:
    """`DecodeBackend.attend` for one layer of [L, R, S, KV, head_dim] keys and values."""
    rows, size = jnp.arange(len(lengths)), cache[0].shape[2]
    written = tuple(
        array.at[layer, rows, lengths].set(new[:, 0], mode="drop")
        for array, new in zip(cache, (keys, values), strict=True)
    )
    step = -(-size // _WINDOWS)

    def within(window: int):
        def run(cache):
            sizes = (1, cache[0].shape[1], window, *cache[0].shape[3:])
            k, v = (jax.lax.dynamic_slice(x, (layer, 0, 0, 0, 0), sizes)[0] for x in cache)
            visible = jnp.arange(window)[None, None] <= lengths[:, None, None]
            return attend(queries, k, v, visible)

        return run

    windows = [min(w, size) for w in range(step, size + step, step)]
    index = jnp.minimum(longest // step, len(windows) - 1)
    return jax.lax.switch(index, [within(w) for w in windows], written), written


_AXES = ("layers", "batch", "time", "kv_heads", "head_dim")


def _padded(keys: Array, values: Array, length: int) -> list[Array]:
    room = ((0, 0), (0, 0), (0, length - keys.shape[2]), (0, 0), (0, 0))
    return [jnp.pad(x, room) for x in (keys, values)]


def _make_stacked(
    axes_order: tuple[int, ...],
    multiple: int,
    keys: Float[Array, "L R P KV d"],
    values: Float[Array, "L R P KV d"],
    length: int,
    *,
    allocate: int | None = None,
) -> Cache:
    """Keys and values of all layers in two arrays, with the axes in this order."""
    length = -(-(allocate or length) // multiple) * multiple
    axes = [_AXES[i] for i in axes_order]
    return tuple(constrain(x.transpose(axes_order), axes) for x in _padded(keys, values, length))


def _make_layers(
    keys: Float[Array, "L R P KV d"],
    values: Float[Array, "L R P KV d"],
    length: int,
    *,
    allocate: int | None = None,
) -> Cache:
    """(keys, values) of each layer, both [R, S, KV, head_dim]."""
    layers = zip(*_padded(keys, values, allocate or length), strict=True)
    return tuple(tuple(constrain(x, _AXES[1:]) for x in layer) for layer in layers)


def _take(axis: int, cache: Cache, rows: Int[Array, " n"]) -> Cache:
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=axis), cache)


def _copy(
    axis: int,
    cache: Cache,
    to: Int[Array, ""],
    source: Cache,
    row: Int[Array, ""],
    enabled: Bool[Array, ""] | bool = True,
) -> Cache:
    return jax.tree.map(lambda x, y: copy_array(axis, x, to, y, row, enabled), cache, source)


def _pages_requirement(config: ModelConfig, dtype: jnp.dtype) -> str:
    if config.head_dim % 128:
        return f"a head_dim that is a multiple of 128, but the actor's is {config.head_dim}"
    return _needs_bfloat16(dtype)


def _layers_requirement(config: ModelConfig, dtype: jnp.dtype) -> str:
    if config.head_dim % 8 or config.head_dim > 128:
        return f"a head_dim that is a multiple of 8 up to 128, but the actor's is {config.head_dim}"
    return _needs_bfloat16(dtype)


def _needs_bfloat16(dtype: jnp.dtype) -> str:
    return "" if dtype == jnp.bfloat16 else f"bfloat16, but the actor's dtype is {dtype.name}"


# For CPUs, see `decode_blocks`.
BLOCKS = DecodeBackend(
    name="blocks",
    make=make_blocks,
    take=partial(_take, 0),
    copy=copy_blocks,
    attend=attend_to_blocks,
    per_layer=True,
    for_small_batch=True,
)
# For any device: all layers in one array and one loop, so compile time does not grow with depth.
DENSE = DecodeBackend(
    name="dense",
    make=partial(_make_stacked, (0, 1, 2, 3, 4), 1),
    take=partial(_take, 1),
    copy=partial(_copy, 1),
    attend=attend_to_dense,
    per_layer=False,
    for_small_batch=False,
)
# For TPUs and GPUs, see `decode_kernels`.
PAGES = DecodeBackend(
    name="pages",
    make=partial(_make_stacked, (3, 0, 1, 2, 4), PAGE),
    take=partial(_take, 2),
    copy=partial(_copy, 2),
    attend=attend_to_pages,
    per_layer=False,
    for_small_batch=False,
    unmet_requirement=_pages_requirement,
)
LAYERS = DecodeBackend(
    name="layers",
    make=_make_layers,
    take=partial(_take, 0),
    copy=partial(_copy, 0),
    attend=attend_with_cudnn,
    per_layer=True,
    for_small_batch=False,
    unmet_requirement=_layers_requirement,
)
BACKENDS = {backend.name: backend for backend in (BLOCKS, DENSE, PAGES, LAYERS)}
_KERNELS = {"pages": ("tpu",), "layers": ("gpu", "cuda")}  # name -> where it runs
_FASTEST = {"cpu": BLOCKS, "tpu": PAGES, "gpu": LAYERS, "cuda": LAYERS}


def choose_decode_backend(
    name: str, platform: str, config: ModelConfig, dtype: jnp.dtype
) -> DecodeBackend:
    """The backend of this name; "auto": the platform's fastest, or "dense" if that cannot be used.

    Raises:
        ConfigError: the backend of this name does not support the model or the platform.
    """
    if name == "auto":
        fastest = _FASTEST.get(platform, DENSE)
        return DENSE if fastest.unmet_requirement(config, dtype) else fastest
    backend = BACKENDS[name]
    if reason := backend.unmet_requirement(config, dtype):
        raise ConfigError(
            f"config.actor.decode_attention={name!r} needs {reason}; choose 'auto' or 'dense'"
        )
    if platform not in (platforms := _KERNELS.get(name, (platform,))):
        raise ConfigError(
            f"config.actor.decode_attention={name!r} is a kernel for {platforms[0]}, but this is "
            f"a {platform}; choose 'auto' or 'dense'"
        )
    return backend
