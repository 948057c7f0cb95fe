"""How the rows of a rollout become minibatches (one gradient) and microbatches (one forward pass).

Loops stop after the last row in use, so microbatches of empty rows are skipped. With packed rows
the number of iterations is known only at run time. Such a loop has no reverse-mode gradient, so
gradients are taken inside it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from asyppo_jax.runtime.sharding import constrain_batch, map_data_shards


def actor_minibatches(
    key: PRNGKeyArray, batch: int, *, epochs: int, minibatch: int, block_size: int = 1
) -> Int[Array, "E m"]:
    """Row indices [epochs · minibatches, rows], shuffled in each epoch.

    Each block of `block_size` consecutive rows, which have one prompt, stays contiguous.
    """
    keys = jax.random.split(key, epochs)
    order = jax.vmap(lambda k: jax.random.permutation(k, batch // block_size))(keys)
    rows = order[..., None] * block_size + jnp.arange(block_size)[None, None]
    return rows.reshape(-1, minibatch)


def critic_minibatches(
    key: PRNGKeyArray,
    shards: Bool[Array, "K B"],
    *,
    size: int,
    epochs: int,
    minibatch: int,
    block_size: int = 1,
) -> Int[Array, "E K m"]:
    """Row indices [epochs · minibatches, K, rows]; those of critic k are in its shard.

    `size` is the number of rows of every shard; shards may overlap. Each critic has its own order.
    Each block of `block_size` consecutive rows of a shard stays contiguous.
    """
    num_critics = shards.shape[0]
    shard_rows = jax.vmap(lambda shard: jnp.nonzero(shard, size=size)[0])(shards)
    blocks = shard_rows.reshape(num_critics, -1, block_size)

    def shuffled(key):
        return jax.vmap(jax.random.permutation)(jax.random.split(key, num_critics), blocks)

    order = jax.vmap(shuffled)(jax.random.split(key, epochs))  # [epochs, K, blocks, block_size]
    split = order.reshape(epochs, num_critics, size // minibatch, minibatch)
    return split.swapaxes(1, 2).reshape(-1, num_critics, minibatch)


def accumulate(
    function: Callable[..., tuple[Any, Any]],
    constants: tuple[Any, ...],
    rows: Any,
    size: int,
    num_rows: Array | int,
    *,
    axis: int = 0,
    local: bool = False,
) -> tuple[Any, Any]:
    """Sums and maxima of `function(*constants, microbatch)` over microbatches of `size` rows.

    `function` returns (arrays to sum, arrays ≥ 0 to take the maximum of). Rows are along `axis`.
    Microbatches that begin at or after `num_rows` are skipped. `local`: each data shard accumulates
    over its own rows of every microbatch, and the results are all-reduced once at the end.
    """
    microbatches, count = _split(rows, size, axis), _num_microbatches(num_rows, size)
    function = traced_once(function)

    def loop(replicated, microbatches):
        constants, count = replicated
        first = _microbatch(microbatches, 0)
        shapes = jax.eval_shape(function, *constants, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add(i, total):
            new_sums, new_maxima = function(*constants, _microbatch(microbatches, i))
            sums = jax.tree.map(jnp.add, total[0], new_sums)
            return sums, jax.tree.map(jnp.maximum, total[1], new_maxima)

        with jax.named_scope("microbatches"):
            return jax.lax.fori_loop(0, count, add, zeros)

    replicated = constants, count
    if not local:
        return loop(replicated, microbatches)
    return _reduced_over_shards(loop, size, axis)(replicated, microbatches)


def _reduced_over_shards(loop: Callable[..., Any], size: int, axis: int) -> Callable[..., Any]:
    """`loop` on each data shard's own rows; its (sums, maxima) reduced over the shards."""

    def on_shard(replicated, microbatches):
        return jax.tree.map(lambda x: x[None], loop(replicated, microbatches))

    def run(replicated, microbatches):
        sums, maxima = map_data_shards(on_shard, size, axis=axis + 1)(replicated, microbatches)
        total = jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)
        return total, jax.tree.map(lambda x: jnp.max(x, axis=0), maxima)

    return run


def in_microbatches(
    function: Callable[[Any], Any], rows: Any, size: int, num_rows: Array | int
) -> Any:
    """The outputs of `function` on microbatches of `size` rows, concatenated along axis 0.

    An output is an array with one entry per row, or a tree of them. Microbatches that begin at or
    after `num_rows` are skipped; their outputs are 0.
    """
    microbatches, function = _split(rows, size, 0), traced_once(function)
    batch = jax.tree.leaves(rows)[0].shape[0]
    shapes = jax.eval_shape(function, _microbatch(microbatches, 0))
    zeros = jax.tree.map(lambda x: jnp.zeros((batch // size, *x.shape), x.dtype), shapes)
    outputs = constrain_batch(zeros, axis=1)

    def compute(i, outputs):
        new = function(_microbatch(microbatches, i))
        return jax.tree.map(lambda x, y: x.at[i].set(y), outputs, new)

    with jax.named_scope("forward_microbatches"):
        outputs = jax.lax.fori_loop(0, _num_microbatches(num_rows, size), compute, outputs)
    return jax.tree.map(lambda x: x.reshape(batch, *x.shape[2:]), outputs)


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; inside a trace, its shapes and its results come from one tracing."""
    return jax.jit(function, inline=True)


def _num_microbatches(num_rows: Array | int, size: int) -> Array | int:
    return (num_rows + size - 1) // size


def _split(rows: Any, size: int, axis: int) -> Any:
    """Leaves [.., R, ..] as [R / size, .., size, ..], each microbatch sharded over `data`."""

    def split(x):
        microbatches = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(microbatches, axis, 0)

    return constrain_batch(jax.tree.map(split, rows), axis=axis + 1)


def _microbatch(microbatches: Any, i: Array | int) -> Any:
    return jax.tree.map(lambda x: x[i], microbatches)
