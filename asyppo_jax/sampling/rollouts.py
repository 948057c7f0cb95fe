"""Rollouts in chunks, so that the host scores one while the devices sample the next."""

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
    """The rollout of each start, once it is complete; by then the next one has been started.

    So the devices sample the next one while the host scores this one.
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


def sample_in_chunks(
    sampler: Sampler,
    params: Params,
    prompts: Sequence[Prompt],
    key: jax.Array,
    mesh: Mesh,
    num_chunks: int,
) -> Iterator[tuple[Rollout, Answers]]:
    """The rollout in chunks of equally many prompts, one sampled ahead; see `join_chunks`.

    `Answers.rows` are indices in the full rollout.
    """
    size, group = len(prompts) // num_chunks, sampler.options.group_size
    chunks = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    first_rows = range(0, len(prompts) * group, size * group)
    starts = (
        partial(sampler, params, chunk, key, mesh, first)
        for chunk, first in zip(chunks, first_rows, strict=True)
    )
    for chunk, first, rollout in zip(chunks, first_rows, one_ahead(starts), strict=True):
        answers = read_answers(rollout, chunk, sampler)
        yield rollout, answers._replace(rows=answers.rows + first)


def join_chunks(chunks: Sequence[tuple[Rollout, Answers]], mesh: Mesh) -> tuple[Rollout, Answers]:
    """The full rollout and its answers, from its chunks in their order."""
    rollouts, answers = zip(*chunks, strict=True)
    if len(rollouts) == 1:
        return rollouts[0], answers[0]
    rollout = jax.jit(_concatenate, out_shardings=batch_sharding(mesh))(*rollouts)
    columns: list[Any] = [
        np.concatenate(column) if isinstance(column[0], np.ndarray) else list(chain(*column))
        for column in zip(*answers, strict=True)
    ]
    return rollout, Answers(*columns)


def _concatenate(*rollouts: Rollout) -> Rollout:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *rollouts)


def with_rewards(
    rollout: Rollout,
    rewards: np.ndarray,
    valid: np.ndarray,
    mesh: Mesh,
    truncated: np.ndarray | None = None,
) -> Rollout:
    """The rollout with its rewards, in float32 so that 0.5 stays 0.5, and which are truncated."""
    fields = {
        "rewards": np.asarray(rewards, np.float32),
        "reward_valid": np.asarray(valid, bool),
    }
    if truncated is not None:
        fields["truncated"] = np.asarray(truncated, bool)
    return rollout.replace(**put(fields, dict.fromkeys(fields, batch_sharding(mesh))))
