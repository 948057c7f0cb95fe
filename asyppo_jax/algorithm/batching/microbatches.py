"""How the rows of a rollout become minibatches (one gradient) and microbatches (one forward pass).

Only the rows in use are met: with packed rows their number is known at run time alone, and a
microbatch without a sequence costs nothing. Nothing differentiates through these loops.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from asyppo_jax.runtime.sharding import by_data_shard, constrain_batch


def actor_minibatches(
    key: PRNGKeyArray, batch: int, *, epochs: int, minibatch: int, together: int = 1
) -> Int[Array, "E m"]:
    """Row numbers [epochs · minibatches, rows], shuffled anew each epoch.

    Every `together` neighbours, which then answer one prompt, stay neighbours.
    """
    keys = jax.random.split(key, epochs)
    order = jax.vmap(lambda k: jax.random.permutation(k, batch // together))(keys)
    rows = order[..., None] * together + jnp.arange(together)[None, None]
    return rows.reshape(-1, minibatch)


def critic_minibatches(
    key: PRNGKeyArray, shards: Array, *, epochs: int, minibatch: int, together: int = 1
) -> Int[Array, "E K m"]:
    """Row numbers [epochs · minibatches, K, rows]; critic k's are of its shard.

    Every `together` neighbours of a shard stay neighbours.
    """
    num_critics, batch = shards.shape
    size = batch // num_critics
    own = jax.vmap(lambda shard: jnp.nonzero(shard, size=size)[0])(shards)
    own = own.reshape(num_critics, -1, together)

    def shuffled(k):
        return jax.vmap(jax.random.permutation)(jax.random.split(k, num_critics), own)

    order = jax.vmap(shuffled)(jax.random.split(key, epochs))  # [epochs, K, size / together, …]
    cut = order.reshape(epochs, num_critics, size // minibatch, minibatch)
    return cut.swapaxes(1, 2).reshape(-1, num_critics, minibatch)


def accumulate(
    function: Callable[..., tuple[Any, Any]],
    whole: tuple[Any, ...],
    rows: Any,
    size: int,
    num_rows: Array | int,
    *,
    axis: int = 0,
    apart: bool = False,
) -> tuple[Any, Any]:
    """`function(*whole, rows)` of `size` rows at a time gives (terms, peaks ≥ 0): the sums and the
    largest ones.

    Rows lie along `axis`, and those from `num_rows` on are left out. `apart`: each device of `data`
    goes through all microbatches by itself, with its own rows of them and `whole`, and what they
    have found meets once, at the end.
    """
    once, turns = traced_once(function), _trips(num_rows, size)

    def own(given, pieces):
        whole, turns = given
        shapes = jax.eval_shape(once, *whole, _piece(pieces, 0))
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def one(i, total):
            terms, peaks = once(*whole, _piece(pieces, i))
            sums = jax.tree.map(jnp.add, total[0], terms)
            return sums, jax.tree.map(jnp.maximum, total[1], peaks)

        with jax.named_scope("microbatches"):
            return jax.lax.fori_loop(0, turns, one, zero)

    pieces = _cut(rows, size, axis)
    if not apart:
        return own((whole, turns), pieces)

    def of_shard(given, pieces):
        return jax.tree.map(lambda x: x[None], own(given, pieces))

    run = by_data_shard(of_shard, size, axis=axis + 1)
    terms, peaks = run((whole, turns), pieces)
    sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), terms)
    return sums, jax.tree.map(lambda x: jnp.max(x, axis=0), peaks)


def in_microbatches(
    function: Callable[[Any], Array], rows: Any, size: int, num_rows: Array | int
) -> Array:
    """`function` of `size` rows at a time, its outputs (rows first) joined; 0 past `num_rows`."""
    pieces, function = _cut(rows, size, 0), traced_once(function)
    batch = jax.tree.leaves(rows)[0].shape[0]
    shape = jax.eval_shape(function, _piece(pieces, 0))
    out = constrain_batch(jnp.zeros((batch // size, *shape.shape), shape.dtype), axis=1)

    def one(i, out):
        return out.at[i].set(function(_piece(pieces, i)))

    with jax.named_scope("forward_microbatches"):
        out = jax.lax.fori_loop(0, _trips(num_rows, size), one, out)
    return out.reshape(batch, *shape.shape[1:])


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same inside a trace, where its shapes and its results then come from one tracing."""
    return jax.jit(function, inline=True)


def _trips(num_rows: Array | int, size: int) -> Array | int:
    return (num_rows + size - 1) // size


def _cut(rows: Any, size: int, axis: int) -> Any:
    """Leaves [.., R, ..] as [R / size, .., size, ..], each piece spread over the data axis."""

    def one(x):
        cut = x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(cut, axis, 0)

    return constrain_batch(jax.tree.map(one, rows), axis=axis + 1)


def _piece(pieces: Any, i: Array | int) -> Any:
    return jax.tree.map(lambda x: x[i], pieces)
