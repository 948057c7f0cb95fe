"""Attention of one new token per row on CPUs: keys and values in blocks, prompts shared by rows.

XLA's batched matrix products run at memory speed there while one operand has at most 64 columns, so
keys are stored as [head_dim, 64] blocks. Every layer has arrays of its own and is compiled by
itself, because a slice of a larger array is a copy there. A row's blocks are split into a few
pieces; a piece is read only if some row is that long.

A piece contributes to the softmax its share of the numerator, of the denominator, and the maximum
that both are relative to (arXiv 2205.14135); `_sum` combines the shares. So the share of a prompt
can be computed separately, once for all rows that answer it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLOCK = 64  # positions per block; fewer where rows are shorter
_PIECES = 4  # per row: each costs compile time and saves reading
_PROMPT_PIECES = 2  # per prompt that several rows share, and which is therefore read less often
_FLOOR = -1e30  # finite: a row that sees nothing must not become NaN

# One layer: a tuple of pieces, each (keys [R, KV, n, d, block], values [R, KV, n, block, d]).
Pieces = tuple[tuple[Array, Array], ...]
Share = tuple[Float[Array, "R KV g d"], Float[Array, "R KV g"], Float[Array, "R KV g"]]


class PromptIndex(NamedTuple):
    """Which of N prompts each of R rows answers.

    A row's response is one of N · G; the responses of a prompt are neighbours. After some rows have
    ended, R is smaller than N · G.
    """

    lengths: Int[Array, " N"]
    longest: Int[Array, ""]
    prompt_lengths: Int[Array, " R"]  # of each row's prompt; the row's own cache continues it
    responses: Int[Array, " R"] | None  # the response of each row; None: row r has response r
    rows: Int[Array, " NG"] | None  # the row of each response; any row for one that has ended

    @property
    def num_responses(self) -> int:
        """N · G."""
        return len(self.prompt_lengths if self.rows is None else self.rows)


class SharedPromptCache(NamedTuple):
    """The caches of N prompts, each stored and read once for all rows that answer it."""

    layers: tuple[Pieces, ...]  # of N rows each
    prompt_index: PromptIndex

    def in_cache(self, lengths: Int[Array, " R"]) -> Int[Array, " R"]:
        """Of so many tokens of each row, those that are not in its prompt."""
        return lengths - self.prompt_index.prompt_lengths

    def of_rows(self, rows: Int[Array, " n"]) -> "SharedPromptCache":
        """The prompts of n rows, in this order; one copy per row if that is less to read."""
        layers, (lengths, longest, prompt_lengths, responses, _) = self
        prompt_lengths = prompt_lengths[rows]
        responses = rows if responses is None else responses[rows]
        count = self.prompt_index.num_responses
        if len(rows) > len(lengths):
            row_of = jnp.zeros(count, jnp.int32).at[responses].set(jnp.arange(len(rows)))
            index = PromptIndex(lengths, longest, prompt_lengths, responses, row_of)
            return SharedPromptCache(layers, index)
        prompt = responses // (count // len(lengths))
        copies = jax.tree.map(lambda x: x[prompt], layers)
        return SharedPromptCache(
            copies, PromptIndex(prompt_lengths, longest, prompt_lengths, None, None)
        )


def share_prompts(
    keys: Float[Array, "L N P KV d"],
    values: Float[Array, "L N P KV d"],
    lengths: Int[Array, " N"],
    longest: Int[Array, ""],
    group: int,
) -> SharedPromptCache:
    """The prompts of N · `group` rows, of which row r has response r."""
    width, each = keys.shape[2], zip(keys, values, strict=True)
    layers = tuple(as_pieces(k, v, width, width, _PROMPT_PIECES) for k, v in each)
    index = PromptIndex(lengths, longest, jnp.repeat(lengths, group), None, None)
    return SharedPromptCache(layers, index)


def make_blocks(
    keys: Float[Array, "L R P KV d"],
    values: Float[Array, "L R P KV d"],
    length: int,
    *,
    allocate: int | None = None,
) -> tuple[Pieces, ...]:
    """`DecodeBackend.make`: the pieces of each layer."""
    layers = zip(keys, values, strict=True)
    return tuple(as_pieces(k, v, length, allocate or length) for k, v in layers)


def as_pieces(
    keys: Float[Array, "R P KV d"],
    values: Float[Array, "R P KV d"],
    length: int,
    positions: int,
    most: int = _PIECES,
) -> Pieces:
    """The first `positions` positions of rows of `length`, whose first P are these.

    A row of `length` has `most` pieces, or one per block if it has fewer blocks.
    """
    block = min(BLOCK, length)
    of_row, count = (-(-n // block) for n in (length, positions))
    size = -(-of_row // most)
    blocks = []
    for x in (keys, values):
        x = jnp.pad(x, ((0, 0), (0, count * block - x.shape[1]), (0, 0), (0, 0)))
        blocks.append(x.reshape(x.shape[0], count, block, *x.shape[2:]))
    by_block = blocks[0].transpose(0, 3, 1, 4, 2), blocks[1].transpose(0, 3, 1, 2, 4)
    starts = range(0, count, size)
    return tuple((by_block[0][:, :, i : i + size], by_block[1][:, :, i : i + size]) for i in starts)


def copy_array(
    axis: int, array: Array, to: Array, source: Array, row: Array, enabled: Any
) -> Array:
    """`array` with row `row` of `source` in its row `to`, along `axis`, if `enabled`."""
    new = jax.lax.dynamic_index_in_dim(source, row, axis)
    at = [to if i == axis else 0 for i in range(array.ndim)]
    before = jax.lax.dynamic_slice(array, at, new.shape)
    return jax.lax.dynamic_update_slice(array, jnp.where(enabled, new, before), at)


def copy_blocks(
    cache: tuple[Pieces, ...],
    to: Int[Array, ""],
    source: tuple[Pieces, ...],
    row: Int[Array, ""],
    enabled: Bool[Array, ""] | bool = True,
) -> tuple[Pieces, ...]:
    """`DecodeBackend.copy`: `source` may have fewer pieces, and a shorter last one."""
    layers = []
    for pieces, given in zip(cache, source, strict=True):
        copied = [
            tuple(copy_array(0, x, to, y, row, enabled) for x, y in zip(*both, strict=True))
            for both in zip(pieces, given, strict=False)
        ]
        layers.append((*copied, *pieces[len(copied) :]))
    return tuple(layers)


def attend_to_blocks(
    pieces: Pieces,
    queries: Float[Array, "R 1 H d"],
    keys: Float[Array, "R 1 KV d"],
    values: Float[Array, "R 1 KV d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
    prompts: tuple[Pieces, PromptIndex] | None = None,
) -> tuple[Float[Array, "R 1 H d"], Pieces]:
    """`DecodeBackend.attend` for one layer.

    With `prompts` (those of the layer, and which rows answer them) a row sees its prompt first, and
    `lengths` counts the tokens after it.
    """
    num_rows, head_dim = queries.shape[0], queries.shape[-1]
    num_kv, rows = keys.shape[2], jnp.arange(num_rows)
    grouped = queries.reshape(num_rows, num_kv, -1, head_dim) / math.sqrt(head_dim)
    start, written = 0, []
    for key_blocks, value_blocks in pieces:
        size = key_blocks.shape[4]
        block, position = (lengths - start) // size, lengths % size
        # Before this piece: a negative index would count from the end, one past the end is dropped.
        block = jnp.where(block < 0, key_blocks.shape[2], block)
        key_blocks = key_blocks.at[rows, :, block, :, position].set(keys[:, 0], mode="drop")
        value_blocks = value_blocks.at[rows, :, block, position].set(values[:, 0], mode="drop")
        written.append((key_blocks, value_blocks))
        start += key_blocks.shape[2] * size
    shares = _shares(written, grouped, lengths, longest)
    if prompts is not None:
        shares.append(_share_of_prompts(*prompts, grouped))
    mixed, total, _ = _sum(shares)
    mixed = (mixed / total[..., None]).astype(queries.dtype)
    return mixed.reshape(queries.shape), tuple(written)


def _share_of_prompts(
    pieces: Pieces, index: PromptIndex, queries: Float[Array, "R KV g d"]
) -> Share:
    """Each row's share of its prompt; the queries of all responses to a prompt are one operand."""
    count, (num_kv, heads, head_dim) = len(index.lengths), queries.shape[1:]
    by_response = queries if index.rows is None else queries[index.rows]
    by_prompt = by_response.reshape(count, -1, num_kv, heads, head_dim).swapaxes(1, 2)
    by_prompt = by_prompt.reshape(count, num_kv, -1, head_dim)
    # Up to the prompt's last token: a row's new token is in its own cache.
    shares = _shares(pieces, by_prompt, index.lengths - 1, index.longest - 1)

    def by_row(x: Array) -> Array:
        x = x.reshape(count, num_kv, -1, heads, *x.shape[3:]).swapaxes(1, 2)
        x = x.reshape(-1, num_kv, heads, *x.shape[4:])
        return x if index.responses is None else x[index.responses]

    mixed, total, highest = _sum(shares)
    return by_row(mixed), by_row(total), by_row(highest)


def _shares(
    pieces: Any,
    queries: Float[Array, "R KV g d"],
    lengths: Int[Array, " R"],
    longest: Int[Array, ""],
) -> list[Share]:
    """The share of every piece; one that starts after the longest row is not read."""
    start, shares = 0, []
    for keys, values in pieces:
        inputs = queries, keys, values, lengths - start
        shares.append(
            jax.lax.cond(longest >= start, _share, _no_share, *inputs) if start else _share(*inputs)
        )
        start += keys.shape[2] * keys.shape[4]
    return shares


def _sum(shares: list[Share]) -> Share:
    """The combined share of all pieces."""
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
    """Σ_s exp(x_s − max x) · v_s over positions up to lengths[r], Σ_s exp(x_s − max x), max x."""
    rows, num_kv, count, head_dim, block = keys.shape
    group = queries.shape[2]
    per_block = jnp.broadcast_to(queries[:, :, None], (rows, num_kv, count, group, head_dim))
    scores = jnp.einsum("rkngd,rknds->rkngs", per_block, keys, preferred_element_type=jnp.float32)
    scores = scores.swapaxes(2, 3).reshape(rows, num_kv, group, count * block)
    seen = jnp.arange(count * block)[None] <= lengths[:, None]
    scores = jnp.where(seen[:, None, None], scores, _FLOOR)
    highest = jnp.max(scores, axis=-1)
    weights = jnp.exp(scores - highest[..., None])
    by_position = values.reshape(rows, num_kv, count * block, head_dim)
    mixed = jnp.einsum(
        "rkgs,rksd->rkgd",
        weights.astype(values.dtype),
        by_position,
        preferred_element_type=jnp.float32,
    )
    return mixed, jnp.sum(weights, axis=-1), highest


def _no_share(queries, keys, values, lengths) -> Share:
    """The share of a piece that no row reaches."""
    none = jnp.zeros(queries.shape, jnp.float32)
    return none, none[..., 0], jnp.full_like(none[..., 0], _FLOOR)
