"""How sequences are laid out in the rows that a network computes.

A row has one sequence, several packed sequences (`packing`), or one prompt with several of its
completions (`rows_per_prompt`, `models.attention.segments.SharedPrompts`), which may be packed too.
No layout changes a result beyond rounding.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from asyppo_jax.algorithm.batching.packing import pack, plan_rows, unpack
from asyppo_jax.algorithm.batching.rows import AnyRows, Rows
from asyppo_jax.config import BatchingConfig
from asyppo_jax.models.attention.segments import SharedPrompts, split_continuations

# [R, n, …] of the rows laid out -> [m, C, …] of the sequences
Restore = Callable[[Array], Array]


def lay_out(
    rows: AnyRows, batching: BatchingConfig, group_size: int
) -> tuple[AnyRows, Array | int, Restore]:
    """The rows in the layout of `batching`, how many of them are in use, and the inverse function.

    The input has one sequence per row; each `group_size` consecutive rows have the same prompt. The
    inverse maps results back to sequences. Where the mask is false its result is not used: 0 for
    packed rows, any value for others.
    """
    count = batching.rows_per_prompt
    if count > 1 and batching.packing:
        return _packed_behind_prompts(rows, count, group_size)
    if count > 1:
        laid_out = _behind_prompts(rows, _completions(rows), count)
        return laid_out, laid_out.tokens.shape[0], lambda x: split_continuations(x, count)
    if not batching.packing:
        return rows, rows.tokens.shape[0], lambda x: x
    packing = plan_rows(rows)
    return pack(rows, packing), packing.num_rows, lambda x: unpack(x, rows, packing)


def before_completions(x: Array, rows: Rows) -> Array:
    """`x` [R, L, …] at the position before each of the n scored tokens of a row: [R, n, …]."""
    if isinstance(rows.segments, SharedPrompts):
        return rows.segments.before(x)
    return x[:, -rows.mask.shape[1] - 1 : -1]


def sequence_mean(x: Float[Array, "R n"], rows: Rows) -> Float[Array, "R n"]:
    """The mean of x over the real tokens of each token's own sequence, at each of them; else 0.

    m_t = (1/|o|) Σ_{t' ∈ o} x_{t'} for the sequence o of token t and its tokens in `rows.mask`. It
    works in every layout of `config.batching`: one sequence per row, `packing`, `rows_per_prompt`,
    and both. The gradient flows through the mean.
    """
    width = x.shape[1]
    if isinstance(rows.segments, SharedPrompts):
        segments, count = rows.segments.segments[:, -width:], rows.segments.count
    else:
        segments, count = rows.segments[:, -width:], 1
    # A sequence begins where the segment changes, and at the start of each continuation. Its tokens
    # get the number of beginnings up to them.
    begins = segments != jnp.pad(segments[:, :-1], ((0, 0), (1, 0)))
    begins |= jnp.arange(width)[None] % (width // count) == 0
    sequence = jnp.cumsum(begins, axis=1) - 1
    totals = jax.vmap(partial(jax.ops.segment_sum, num_segments=width, indices_are_sorted=True))
    # In float32, because bfloat16 counts to 256 only.
    total = totals(jnp.where(rows.mask, x, 0.0).astype(jnp.float32), sequence)
    length = totals(rows.mask.astype(jnp.float32), sequence)
    mean = jnp.take_along_axis(total / jnp.maximum(length, 1), sequence, axis=1)
    return jnp.where(rows.mask, mean, 0.0).astype(x.dtype)


def _completions(rows: AnyRows) -> AnyRows:
    return jax.tree.map(lambda x: x[:, -rows.mask.shape[1] :], rows)


def _behind_prompts(rows: AnyRows, completions: AnyRows, count: int) -> AnyRows:
    """Rows [P | count · C]: a prompt, then `count` consecutive completions of it."""
    prompt = rows.tokens.shape[1] - completions.tokens.shape[1]

    def joined(x: Array) -> Array:
        return x.reshape(-1, count * x.shape[1])

    def with_prompts(sequences: Array, x: Array) -> Array:
        return jnp.concatenate([sequences[::count, :prompt], joined(x)], axis=1)

    return jax.tree.map(joined, completions).replace(
        tokens=with_prompts(rows.tokens, completions.tokens),
        segments=SharedPrompts(with_prompts(rows.segments, completions.segments), prompt, count),
    )


def _packed_behind_prompts(
    rows: AnyRows, count: int, group_size: int
) -> tuple[AnyRows, Array, Restore]:
    """`_behind_prompts` after packing each group's completions; rows in use come first."""
    completions = _in_groups(_completions(rows), group_size)
    plan = jax.vmap(plan_rows)(completions)
    packed = _joined(jax.vmap(pack)(completions, plan))
    used = jnp.arange(0, group_size, count)[None] < plan.num_rows[:, None]
    order = jnp.argsort(~used.reshape(-1), stable=True)
    laid_out = jax.tree.map(lambda x: x[order], _behind_prompts(rows, packed, count))

    def restore(x: Array) -> Array:
        continuations = _in_groups(split_continuations(x[jnp.argsort(order)], count), group_size)
        return _joined(jax.vmap(unpack)(continuations, completions, plan))

    return laid_out, jnp.sum(used, dtype=jnp.int32), restore


def _in_groups(tree, group_size: int):
    return jax.tree.map(lambda x: x.reshape(-1, group_size, *x.shape[1:]), tree)


def _joined(tree):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
