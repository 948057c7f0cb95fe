"""How sequences are laid out in the rows that a network computes.

As they come, one a row; packed (`packing`); or as branches behind a prompt that several share
(`models.segments.Branches`), one completion a branch or packed ones. No layout changes a number.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from asyppo_jax.config import BatchingConfig
from asyppo_jax.models.segments import Branches
from asyppo_jax.packing import AnyRows, Packing, Rows, pack, plan_rows, unpack

Back = Callable[[Array], Array]  # [R, n, …] of the rows laid out -> [m, C, …] of the sequences


def lay_out(
    rows: AnyRows, batching: BatchingConfig, group_size: int
) -> tuple[AnyRows, Array | int, Back]:
    """One-sequence rows as `batching` wants them, how many of them are in use, and the way back.

    Every `group_size` neighbours answer the same prompt. What lies under a false mask comes back as
    0 from packed rows, else as it was computed.
    """
    if batching.rows_per_prompt > 1:
        return _branched(rows, batching.rows_per_prompt, batching.packing, group_size)
    if not batching.packing:
        return rows, rows.tokens.shape[0], lambda x: x
    packing = plan_rows(rows)
    return pack(rows, packing), packing.num_rows, lambda x: unpack(x, rows, packing)


def before_completions(x: Array, rows: Rows) -> Array:
    """Of every token of which `rows` speaks, `x` [R, L, …] of the token before it: [R, n, …]."""
    if isinstance(rows.segments, Branches):
        return rows.segments.before(x)
    return x[:, -rows.mask.shape[1] - 1 : -1]


def _branched(
    rows: AnyRows, count: int, packing: bool, group_size: int
) -> tuple[AnyRows, Array | int, Back]:
    """Rows [P | count · C]; a group's completions fill as many as they need."""
    batch, width = rows.mask.shape
    prompt = rows.tokens.shape[1] - width
    completions = _completions(rows)
    num_rows, order, plan = batch // count, None, None
    if packing:
        groups = _in_groups(completions, group_size)
        plan = jax.vmap(plan_rows)(groups)
        completions = _joined(jax.vmap(pack)(groups, plan))
        used = jnp.arange(0, group_size, count)[None] < plan.num_rows[:, None]
        num_rows = jnp.sum(used, dtype=jnp.int32)
        order = jnp.argsort(~used.reshape(-1), stable=True)  # rows in use come first

    def joined(x: Array) -> Array:
        x = x.reshape(-1, count * width)
        return x if order is None else x[order]

    def behind_prompts(prompts: Array, x: Array) -> Array:
        prompts = prompts[::count, :prompt]
        prompts = prompts if order is None else prompts[order]
        return jnp.concatenate([prompts, joined(x)], axis=1)

    laid = jax.tree.map(joined, completions).replace(
        tokens=behind_prompts(rows.tokens, completions.tokens),
        segments=Branches(behind_prompts(rows.segments, completions.segments), prompt, count),
    )

    def back(x: Array) -> Array:
        if plan is None or order is None:
            return x.reshape(batch, width, *x.shape[2:])
        x = x[jnp.argsort(order)].reshape(batch, width, *x.shape[2:])
        return _unpacked(x, _completions(rows), plan, group_size)

    return laid, num_rows, back


def _completions(rows: AnyRows) -> AnyRows:
    return jax.tree.map(lambda x: x[:, -rows.mask.shape[1] :], rows)


def _unpacked(x: Array, completions: Rows, plan: Packing, group_size: int) -> Array:
    """A group's packed branches [B, C, …], as [B, C, …] of its completions."""
    x, completions = _in_groups((x, completions), group_size)
    return _joined(jax.vmap(unpack)(x, completions, plan))


def _in_groups(tree, group_size: int):
    return jax.tree.map(lambda x: x.reshape(-1, group_size, *x.shape[1:]), tree)


def _joined(tree):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
