"""Between text and arrays: prompts onto the devices, sampled tokens back to answers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from asyppo_jax.runtime.sharding import batch_sharding, put
from asyppo_jax.sampling.sampler import Answers, Sampler, read_answers
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.types import Params, Rollout


def one_ahead(starts: Iterable[Callable[[], Rollout]]) -> Iterator[Rollout]:
    """The rollout of each start, once it is there; by then the next one has been started.

    So the devices sample the next while the host scores this one.
    """
    begun: Rollout | None = None
    for start in starts:
        ready = begun
        if ready is not None:
            jax.block_until_ready(ready)
        begun = start()
        if ready is not None:
            yield ready
    if begun is not None:
        yield jax.block_until_ready(begun)


def sample_in_parts(
    sampler: Sampler,
    params: Params,
    prompts: Sequence[Prompt],
    key: jax.Array,
    mesh: Mesh,
    parts: int,
) -> Iterator[tuple[Rollout, Answers]]:
    """The rollout in `parts` of equally many prompts, one sampled ahead; see `join_parts`.

    `Answers.rows` are rows of the whole.
    """
    size = len(prompts) // parts
    pieces = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    rows = range(0, len(prompts) * sampler.options.group_size, size * sampler.options.group_size)
    starts = (
        partial(sampler, params, piece, key, mesh, first)
        for piece, first in zip(pieces, rows, strict=True)
    )
    for piece, first, rollout in zip(pieces, rows, one_ahead(starts), strict=True):
        answers = read_answers(rollout, piece, sampler)
        yield rollout, answers._replace(rows=answers.rows + first)


def join_parts(parts: Sequence[tuple[Rollout, Answers]], mesh: Mesh) -> tuple[Rollout, Answers]:
    """One rollout and its answers out of their parts, in their order."""
    rollouts, answers = zip(*parts, strict=True)
    if len(rollouts) == 1:
        return rollouts[0], answers[0]
    whole = jax.jit(_concatenate, out_shardings=batch_sharding(mesh))(*rollouts)
    columns: list[Any] = [
        np.concatenate(x) if isinstance(x[0], np.ndarray) else list(chain(*x))
        for x in zip(*answers, strict=True)
    ]
    return whole, Answers(*columns)


def _concatenate(*rollouts: Rollout) -> Rollout:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *rollouts)


def with_rewards(rollout: Rollout, rewards: np.ndarray, valid: np.ndarray, mesh: Mesh) -> Rollout:
    """The rollout with its scores: float32 whatever the scorer gave, so that 0.5 stays 0.5."""
    place = batch_sharding(mesh)
    scores = np.asarray(rewards, np.float32), np.asarray(valid, bool)
    placed_rewards, placed_valid = put(scores, (place, place))
    return rollout.replace(rewards=placed_rewards, reward_valid=placed_valid)
