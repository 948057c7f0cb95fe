"""Attention of one new token a row to the row's cache, in forms that agree.

Place s of a row's cache holds the token at position s, so a row sees its first `length` places and
nothing else. What is read follows the longest row of the batch, not the cache's size.

"blocks" is the form for CPUs, see `decode_blocks`.
"dense" is for any device: all layers in one array, looped over, so that a deep model compiles once.
"pages" (TPU) and "layers" (GPU) are kernels, see `decode_kernels`.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from asyppo_jax.config import ConfigError
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.decode_blocks import as_pieces, attend_to_blocks
from asyppo_jax.models.attention.decode_kernels import PAGE, attend_to_pages, attend_with_cudnn
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.runtime.sharding import constrain

Form = Literal["blocks", "dense", "pages", "layers"]
# "blocks": a tuple of layers, each `Pieces`. "layers": a tuple of layers, each (keys, values), both
# [R, S, KV, head_dim]. The others: (keys, values) of all layers, "dense" [L, R, S, KV, head_dim],
# "pages" [KV, L, R, S, head_dim].
Cache = tuple[Any, ...]
_ROW_AXIS = {"blocks": 0, "layers": 0, "dense": 1, "pages": 2}

_WINDOWS = 4  # parts of a row, read only so far as the longest row needs it


def form_for(platform: str, config: ModelConfig, dtype: jnp.dtype) -> Form:
    """The fastest form for a platform that serves this model."""
    kernels: dict[str, Form] = {"tpu": "pages", "gpu": "layers", "cuda": "layers"}
    if platform == "cpu":
        return "blocks"
    form = kernels.get(platform, "dense")
    return "dense" if _what_a_kernel_lacks(form, config, dtype) else form


def check_form(form: Form, config: ModelConfig, dtype: jnp.dtype) -> None:
    """Whether a form that was asked for serves this model.

    Raises:
        ConfigError: it does not; the message names the mend.
    """
    if lacking := _what_a_kernel_lacks(form, config, dtype):
        raise ConfigError(
            f"config.actor.decode_attention={form!r} computes with {lacking}; take 'auto' or "
            "'dense'"
        )


def _what_a_kernel_lacks(form: Form, config: ModelConfig, dtype: jnp.dtype) -> str:
    if form not in ("pages", "layers"):
        return ""
    if dtype != jnp.bfloat16:
        return f"bfloat16 alone, but the actor's dtype is {dtype.name}"
    width = config.head_dim
    if form == "pages" and width % 128:
        return f"heads of a multiple of 128, but the actor's are {width} wide"
    if form == "layers" and (width % 8 or width > 128):
        return f"heads of a multiple of 8 up to 128, but the actor's are {width} wide"
    return ""


def make_cache(
    form: Form,
    keys: Float[Array, "L R P KV d"],
    values: Float[Array, "L R P KV d"],
    length: int,
    *,
    part: int | None = None,
) -> Cache:
    """A cache of `length` places a row whose first P are these; with `part`, its first places."""
    wanted = length if part is None else part
    if form != "blocks":
        wanted = -(-wanted // PAGE) * PAGE if form == "pages" else wanted
        room = ((0, 0), (0, 0), (0, wanted - keys.shape[2]), (0, 0), (0, 0))
        names = ("layers", "batch", "time", "kv_heads", "head_dim")
        padded = [jnp.pad(x, room) for x in (keys, values)]
        if form == "layers":
            layers = zip(*padded, strict=True)
            return tuple(tuple(constrain(x, names[1:]) for x in layer) for layer in layers)
        order = (3, 0, 1, 2, 4) if form == "pages" else range(5)
        names = [names[i] for i in order]
        return tuple(constrain(x.transpose(tuple(order)), names) for x in padded)
    layers = zip(keys, values, strict=True)
    return tuple(as_pieces(k, v, length, wanted) for k, v in layers)


def take_rows(form: Form, cache: Cache, rows: Int[Array, " n"]) -> Cache:
    """A cache of these rows, in this order."""
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=_ROW_AXIS[form]), cache)


def copy_row(
    form: Form,
    cache: Cache,
    to: Int[Array, ""],
    source: Cache,
    row: Int[Array, ""],
    real: Bool[Array, ""] | bool = True,
) -> Cache:
    """The cache with a row of another one (of no more places) in its row `to`, if `real`."""
    axis = _ROW_AXIS[form]

    def copy(cache, source):
        one = jax.lax.dynamic_index_in_dim(source, row, axis)
        at = [to if i == axis else 0 for i in range(cache.ndim)]
        before = jax.lax.dynamic_slice(cache, at, one.shape)
        return jax.lax.dynamic_update_slice(cache, jnp.where(real, one, before), at)

    if form != "blocks":
        return jax.tree.map(copy, cache, source)
    layers = []
    for pieces, given in zip(cache, source, strict=True):
        copied = [tuple(map(copy, *both)) for both in zip(pieces, given, strict=False)]
        layers.append((*copied, *pieces[len(copied) :]))
    return tuple(layers)


def attend_to_layer(
    cache: Cache,
    layer: Int[Array, ""],
    queries: Float[Array, "R 1 H d"],
    keys: Float[Array, "R 1 KV d"],
    values: Float[Array, "R 1 KV d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
) -> tuple[Float[Array, "R 1 H d"], Cache]:
    """As `attend_to_blocks`, for one layer of the "dense" form."""
    rows, size = jnp.arange(len(lengths)), cache[0].shape[2]
    written = tuple(
        whole.at[layer, rows, lengths].set(new[:, 0], mode="drop")
        for whole, new in zip(cache, (keys, values), strict=True)
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
    branches = [within(w) for w in windows]
    return jax.lax.switch(
        jnp.minimum(longest // step, len(windows) - 1), branches, written
    ), written


# Of forms whose layers have arrays of their own: attend(layer's cache, q, k, v, lengths, longest),
# and of "blocks" the prompts that rows share, if they do.
BY_LAYER = {"blocks": attend_to_blocks, "layers": attend_with_cudnn}
# Of the others: attend(cache, layer, q, k, v, lengths, longest).
IN_ONE = {"dense": attend_to_layer, "pages": attend_to_pages}
