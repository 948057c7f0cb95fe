"""Attention of one new token a row on CPUs: keys and values in blocks, prompts that rows share.

XLA's batched products are as fast as memory there while one operand is no wider than 64 columns, so
keys lie as [head_dim, 64] blocks; every layer has arrays of its own and is compiled for itself,
because a slice of a larger array is a copy there. A row's blocks are cut into a few pieces, each
read only if some row is so long.

A piece gives its share of the softmax's numerator and denominator and the maximum that they are
relative to (arXiv 2205.14135); shares of several pieces are added up. So a prompt's share may be
computed by itself, once for all rows that answer it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BLOCK = 64  # places of a row that lie together; fewer where rows are shorter
_PIECES = 4  # into which a row's blocks are cut: each costs compilation, and spares reading
_PROMPT_PIECES = 2  # of a prompt that several rows share, and so is read less
_FLOOR = -1e30  # finite: a row that sees nothing must not become NaN

# One layer: a tuple of pieces, each (keys [R, KV, n, d, block], values [R, KV, n, block, d]).
Pieces = tuple[tuple[Array, Array], ...]
Share = tuple[Float[Array, "R KV g d"], Float[Array, "R KV g"], Float[Array, "R KV g"]]


class Seating(NamedTuple):
    """Which of N prompts each of R rows answers.

    A row has a seat: its response's place among all N · G, those of a prompt side by side.
    """

    lengths: Int[Array, " N"]
    longest: Int[Array, ""]
    starts: Int[Array, " R"]  # the length of each row's prompt: what it holds itself begins there
    seats: Int[Array, " R"] | None  # None: row r has seat r
    rows: Int[Array, " NG"] | None  # the row of each seat; of a seat without one, any

    @property
    def num_seats(self) -> int:
        """N · G."""
        return len(self.starts if self.rows is None else self.rows)


class SharedPrompts(NamedTuple):
    """Prompts that are held once, and read once a token, for all the rows that answer them."""

    layers: tuple[Pieces, ...]  # of N rows each
    seating: Seating

    def of_rows(self, rows: Int[Array, " n"]) -> "SharedPrompts":
        """Those of n rows, in this order; each gets its own prompt if that is less to read."""
        layers, (lengths, longest, starts, seats, _) = self
        starts, seats = starts[rows], rows if seats is None else seats[rows]
        if len(rows) > len(lengths):
            at = jnp.zeros(self.seating.num_seats, jnp.int32).at[seats].set(jnp.arange(len(rows)))
            return SharedPrompts(layers, Seating(lengths, longest, starts, seats, at))
        prompt = seats // (self.seating.num_seats // len(lengths))
        own = jax.tree.map(lambda x: x[prompt], layers)
        return SharedPrompts(own, Seating(starts, longest, starts, None, None))


def share_prompts(
    keys: Float[Array, "L N P KV d"],
    values: Float[Array, "L N P KV d"],
    lengths: Int[Array, " N"],
    longest: Int[Array, ""],
    group: int,
) -> SharedPrompts:
    """The prompts of N · `group` rows, each in its own seat."""
    width, each = keys.shape[2], zip(keys, values, strict=True)
    layers = tuple(as_pieces(k, v, width, width, _PROMPT_PIECES) for k, v in each)
    return SharedPrompts(layers, Seating(lengths, longest, jnp.repeat(lengths, group), None, None))


def as_pieces(
    keys: Float[Array, "R P KV d"],
    values: Float[Array, "R P KV d"],
    length: int,
    places: int,
    most: int = _PIECES,
) -> Pieces:
    """The first `places` places of rows of `length`, whose first P are these.

    Whole rows would be `most` pieces, if they have as many blocks.
    """
    block = min(BLOCK, length)
    whole, count = (-(-n // block) for n in (length, places))
    size = -(-whole // most)
    blocks = []
    for x in (keys, values):
        x = jnp.pad(x, ((0, 0), (0, count * block - x.shape[1]), (0, 0), (0, 0)))
        blocks.append(x.reshape(x.shape[0], count, block, *x.shape[2:]))
    by_block = blocks[0].transpose(0, 3, 1, 4, 2), blocks[1].transpose(0, 3, 1, 2, 4)
    starts = range(0, count, size)
    return tuple((by_block[0][:, :, i : i + size], by_block[1][:, :, i : i + size]) for i in starts)


def attend_to_blocks(
    pieces: Pieces,
    queries: Float[Array, "R 1 H d"],
    keys: Float[Array, "R 1 KV d"],
    values: Float[Array, "R 1 KV d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
    prompts: tuple[Pieces, Seating] | None = None,
) -> tuple[Float[Array, "R 1 H d"], Pieces]:
    """Writes each row's new token at place lengths[r] of a layer; softmax(q·k / √d) · v up to it.

    With `prompts` (the layer's, and who sits where) a row sees its prompt first, and `lengths`
    counts what it holds itself.
    """
    rows, head_dim = queries.shape[0], queries.shape[-1]
    num_kv, index = keys.shape[2], jnp.arange(rows)
    grouped = queries.reshape(rows, num_kv, -1, head_dim) / math.sqrt(head_dim)
    start, written = 0, []
    for key_blocks, value_blocks in pieces:
        size = key_blocks.shape[4]
        block, place = (lengths - start) // size, lengths % size
        # Outside of this piece: negative indices would count from the end.
        block = jnp.where(block < 0, key_blocks.shape[2], block)
        key_blocks = key_blocks.at[index, :, block, :, place].set(keys[:, 0], mode="drop")
        value_blocks = value_blocks.at[index, :, block, place].set(values[:, 0], mode="drop")
        written.append((key_blocks, value_blocks))
        start += key_blocks.shape[2] * size
    shares = _shares(written, grouped, lengths, longest)
    if prompts is not None:
        shares.append(_share_of_prompts(*prompts, grouped))
    mixed, total, _ = _sum(shares)
    mixed = (mixed / total[..., None]).astype(queries.dtype)
    return mixed.reshape(queries.shape), tuple(written)


def _share_of_prompts(pieces: Pieces, seating: Seating, queries: Float[Array, "R KV g d"]) -> Share:
    """What each row takes from its prompt; the queries of a prompt's seats are one operand."""
    count, (num_kv, heads, head_dim) = len(seating.lengths), queries.shape[1:]
    seated = queries if seating.rows is None else queries[seating.rows]
    together = seated.reshape(count, -1, num_kv, heads, head_dim).swapaxes(1, 2)
    together = together.reshape(count, num_kv, -1, head_dim)
    # To its last token: a row's own new one is not there.
    shares = _shares(pieces, together, seating.lengths - 1, seating.longest - 1)

    def by_row(x: Array) -> Array:
        x = x.reshape(count, num_kv, -1, heads, *x.shape[3:]).swapaxes(1, 2)
        x = x.reshape(-1, num_kv, heads, *x.shape[4:])
        return x if seating.seats is None else x[seating.seats]

    mixed, total, highest = _sum(shares)
    return by_row(mixed), by_row(total), by_row(highest)


def _shares(
    pieces: Any,
    queries: Float[Array, "R KV g d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
) -> list[Share]:
    """Every piece's share; one that starts after the longest row is not read."""
    start, shares = 0, []
    for keys, values in pieces:
        inputs = queries, keys, values, lengths - start
        shares.append(
            jax.lax.cond(longest >= start, _share, _no_share, *inputs) if start else _share(*inputs)
        )
        start += keys.shape[2] * keys.shape[4]
    return shares


def _sum(shares: list[Share]) -> Share:
    """The share of all pieces together."""
    highest = jnp.stack([s[2] for s in shares]).max(axis=0)
    scales = [jnp.exp(s[2] - highest) for s in shares]
    mixed: Any = sum(s[0] * scale[..., None] for s, scale in zip(shares, scales, strict=True))
    total: Any = sum(s[1] * scale for s, scale in zip(shares, scales, strict=True))
    return mixed, total, highest


def _share(
    queries: Float[Array, "R KV g d"],
    keys: Float[Array, "R KV n d block"],
    values: Float[Array, "R KV n block d"],
    lengths: Int[Array, " R"],
) -> Share:
    """Σ_s exp(x_s − max x) · v_s over the places up to lengths[r], Σ_s exp(x_s − max x), max x."""
    rows, num_kv, count, head_dim, block = keys.shape
    group = queries.shape[2]
    per_block = jnp.broadcast_to(queries[:, :, None], (rows, num_kv, count, group, head_dim))
    scores = jnp.einsum("rkngd,rknds->rkngs", per_block, keys, preferred_element_type=jnp.float32)
    scores = scores.swapaxes(2, 3).reshape(rows, num_kv, group, count * block)
    seen = jnp.arange(count * block)[None] <= lengths[:, None]
    scores = jnp.where(seen[:, None, None], scores, _FLOOR)
    highest = jnp.max(scores, axis=-1)
    weights = jnp.exp(scores - highest[..., None])
    whole = values.reshape(rows, num_kv, count * block, head_dim)
    mixed = jnp.einsum(
        "rkgs,rksd->rkgd", weights.astype(values.dtype), whole, preferred_element_type=jnp.float32
    )
    return mixed, jnp.sum(weights, axis=-1), highest


def _no_share(queries, keys, values, lengths) -> Share:
    """The share of a piece that no row has reached."""
    none = jnp.zeros(queries.shape, jnp.float32)
    return none, none[..., 0], jnp.full_like(none[..., 0], _FLOOR)
