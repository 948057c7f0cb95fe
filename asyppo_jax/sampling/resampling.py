"""DAPO's dynamic sampling (arXiv 2503.14476, equation 11): which groups a step learns from."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int

from asyppo_jax.runtime.sharding import batch_sharding, put, replicated
from asyppo_jax.types import Rollout


def choose_groups(
    spread: Bool[np.ndarray, " N"], new_spread: Bool[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
    """Which groups stay, as indices into the N groups of now followed by the N new ones.

    A group with spread keeps its position. One without is replaced by the next new group with
    spread, in their order, while there are any. So the batch has the first N groups with spread of
    all that were sampled; what it has without spread are groups that found no replacement.
    """
    count = len(spread)
    groups, empty, new = np.arange(count), np.flatnonzero(~spread), np.flatnonzero(new_spread)
    replaced = min(len(empty), len(new))
    groups[empty[:replaced]] = count + new[:replaced]
    return groups


def group_rows(groups: Int[np.ndarray, " N"], group_size: int) -> Int[np.ndarray, " B"]:
    """The sequences of these groups, in order."""
    return (groups[:, None] * group_size + np.arange(group_size)).ravel()


def take_rows(rollouts: Sequence[Rollout], rows: Int[np.ndarray, " B"], mesh: Mesh) -> Rollout:
    """The sequences `rows` of the concatenated rollouts, sharded over `mesh`.

    All processes of a run must call this with the same `rows`.
    """
    take = jax.jit(_take, out_shardings=batch_sharding(mesh))
    return take(tuple(rollouts), put(rows.astype(np.int32), replicated(mesh)))


def _take(rollouts: tuple[Rollout, ...], rows: jax.Array) -> Rollout:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[rows], *rollouts)
