"""Several sequences in one row, so that work is proportional to real tokens.

Everything runs inside jit with static shapes: m sequences of at most L tokens become m rows of L
tokens, of which the first `num_rows`, a traced number, are in use. One trace serves all lengths.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from asyppo_jax.algorithm.batching.rows import AnyRows, Rows
from asyppo_jax.runtime.sharding import constrain


class Packing(struct.PyTreeNode):
    """The positions of m sequences in m rows of L tokens, by sequence and by token."""

    row: Array  # [m] int32
    start: Array  # [m] int32, the position in its row at which the sequence begins
    sequence: Array  # [m, L] int32, the sequence of the token at each position
    token: Array  # [m, L] int32, the index of that token in its sequence
    segments: Array  # [m, L] int32, 0 where there is no token
    num_rows: Array  # scalar int32, rows in use: the first ones


def first_fit(
    lengths: Int[Array, " m"], capacity: int
) -> tuple[Int[Array, " m"], Int[Array, " m"], Int[Array, ""], Int[Array, " m"]]:
    """First-fit decreasing: the longest sequence first, each in the first row with room for it.

    It needs at most 11/9 of the fewest rows possible, plus 6/9 (Dósa 2007). Returns
    `(row, start, num_rows, order)` for sequences of at most `capacity` tokens; sequences of equal
    length keep their order. A sequence of length 0 takes no room.
    """
    order = jnp.argsort(-lengths)

    def put(fill, length):
        row = jnp.argmax(fill + length <= capacity)
        return fill.at[row].add(length), (row.astype(jnp.int32), fill[row])

    fill, (row, start) = jax.lax.scan(put, jnp.zeros_like(lengths), lengths[order])
    back = jnp.argsort(order)
    return row[back], start[back], jnp.sum(fill > 0, dtype=jnp.int32), order


def plan_packing(lengths: Int[Array, " m"], capacity: int) -> Packing:
    """The packing that `first_fit` finds, by sequence and by position."""
    # Replicated, because a sharded scan would communicate once per sequence.
    lengths = constrain(lengths, (None,))
    count = lengths.shape[0]
    row, start, num_rows, order = first_fit(lengths, capacity)
    # Each sequence's rank (its index in `order`, from 1) is written at its start. Within a row
    # later ranks are further right, so the running maximum gives the rank at every position.
    begins = jnp.zeros((count, capacity), jnp.int32)
    begins = begins.at[row[order], start[order]].max(jnp.arange(1, count + 1, dtype=jnp.int32))
    rank = jax.lax.cummax(begins, axis=1)
    sequence = order[jnp.maximum(rank - 1, 0)].astype(jnp.int32)
    token = jnp.arange(capacity, dtype=jnp.int32)[None] - start[sequence]
    real = (rank > 0) & (token < lengths[sequence])
    segments = jnp.where(real, rank, 0)
    return Packing(row, start, sequence, jnp.where(real, token, 0), segments, num_rows)


def plan_rows(rows: Rows) -> Packing:
    """The packing of one-sequence rows; sequences without a token in `mask` are left out."""
    real = jnp.sum(rows.segments > 0, axis=1, dtype=jnp.int32)
    lengths = jnp.where(jnp.any(rows.mask, axis=1), real, 0)
    return plan_packing(lengths, rows.tokens.shape[1])


def pack(rows: AnyRows, packing: Packing) -> AnyRows:
    """The same sequences in the rows of `packing`; positions without a token are 0."""
    length = rows.tokens.shape[1]
    column = _first_column(rows)[packing.sequence] + packing.token

    def pack_array(x):
        num_missing = length - x.shape[1]  # columns of a row that x does not have
        is_real = (packing.segments > 0) & (column >= num_missing)
        values = x[packing.sequence, jnp.maximum(column - num_missing, 0)]
        packed = jnp.where(is_real, values, jnp.zeros((), x.dtype))
        # A packed row begins with a prompt, so per-token arrays start at its second position.
        return packed[:, 1:] if num_missing else packed

    return jax.tree.map(pack_array, rows).replace(segments=packing.segments)


def unpack(x: Array, rows: Rows, packing: Packing) -> Array:
    """[m, n, …] of packed rows as [m, C, …] of their sequences; 0 where `rows.mask` is false."""
    width = rows.mask.shape[1]
    column = rows.tokens.shape[1] - width + jnp.arange(width)
    token = column[None] - _first_column(rows)[:, None]
    num_missing = rows.tokens.shape[1] - x.shape[1]  # columns of a row that x does not have
    at = jnp.clip(packing.start[:, None] + token - num_missing, 0, x.shape[1] - 1)
    mask = rows.mask.reshape(*rows.mask.shape, *[1] * (x.ndim - 2))
    return jnp.where(mask, x[packing.row[:, None], at], jnp.zeros((), x.dtype))


def _first_column(rows: Rows) -> Int[Array, " m"]:
    return jnp.argmax(rows.segments > 0, axis=1).astype(jnp.int32)
