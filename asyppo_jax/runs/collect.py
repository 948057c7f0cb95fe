"""The rollout of a step: sampled, scored and, with DAPO's dynamic sampling, sampled again."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np

from asyppo_jax.algorithm.train_step import phase_key, warmup_steps
from asyppo_jax.config import Config
from asyppo_jax.ops.baselines import has_spread
from asyppo_jax.runs.progress import Progress
from asyppo_jax.runs.setup import Run
from asyppo_jax.runtime.multi_host import gather_rows
from asyppo_jax.runtime.phase_meshes import to_mesh
from asyppo_jax.sampling.resampling import choose_groups, group_rows, take_rows
from asyppo_jax.sampling.rollouts import join_chunks, sample_in_chunks, with_rewards
from asyppo_jax.sampling.sampler import Answers, read_answers
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.tasks.rewards import RewardPool, Scores, join_scores
from asyppo_jax.types import Params, Rollout, TrainState


class Columns(NamedTuple):
    """What the host knows of all B sequences of a rollout; equal on all processes."""

    rewards: np.ndarray  # [B] float32
    valid: np.ndarray  # [B] bool
    truncated: np.ndarray  # [B] bool
    lengths: np.ndarray  # [B] tokens
    by_function: Mapping[str, np.ndarray]  # [B] float32 of each of several reward functions


class Collected(NamedTuple):
    """A step's scored rollout, and what was sampled to get it."""

    rollout: Rollout
    prompts: Sequence[Prompt]
    columns: Columns
    answers: Answers  # those of this process
    scores: Scores  # theirs; its reasons count all sampled answers of this process
    sampled_tokens: float  # of all rounds and processes
    metrics: dict[str, float]  # of dynamic sampling; empty without


class _Round(NamedTuple):
    """N groups of answers, of which dynamic sampling may replace some."""

    rollout: Rollout  # without rewards
    prompts: Sequence[Prompt]
    columns: Columns


def collect(
    run: Run, state: TrainState, data: Any, pool: RewardPool, progress: Progress
) -> Collected:
    """The scored rollout of the coming step; takes its prompts from the iterator `data`.

    With `config.algorithm.zero_spread_groups = "resample"`, a step that updates the actor samples
    further rounds of N groups, each of the next N prompts and with its own key, until N groups have
    a spread of rewards or `config.sampling.max_rounds` are sampled. All processes must call this.
    """
    with jax.set_mesh(run.sampling_mesh):
        collected = _collect(run, run.for_sampling(state), data, pool, progress)
    return collected._replace(rollout=to_mesh(collected.rollout, run.mesh))


def _collect(
    run: Run, state: TrainState, data: Any, pool: RewardPool, progress: Progress
) -> Collected:
    key = phase_key(state.key, state.step, "sample")
    now, answers, scores = _sample(run, state.actor_params, next(data), key, pool, progress)
    tokens, metrics = float(now.columns.lengths.sum()), {}
    algorithm = run.config.algorithm
    if algorithm.zero_spread_groups == "resample" and int(state.step) >= warmup_steps(run.config):
        now, reasons, sampled = _resample(run, state, data, pool, progress, now, scores)
        tokens, metrics = float(sampled.lengths.sum()), _metrics(sampled, run.config)
        if metrics["rollout/rounds"] > 1:
            answers = read_answers(now.rollout, now.prompts, run.sampler)
            ours = _at(now.columns, answers.rows)
            scores = Scores(ours.rewards, ours.valid, reasons, ours.by_function)
    rewards, valid, truncated, *_ = now.columns
    rollout = with_rewards(now.rollout, rewards, valid, run.sampling_mesh, truncated)
    return Collected(rollout, now.prompts, now.columns, answers, scores, tokens, metrics)


def _resample(
    run: Run,
    state: TrainState,
    data: Any,
    pool: RewardPool,
    progress: Progress,
    now: _Round,
    scores: Scores,
) -> tuple[_Round, dict[str, int], Columns]:
    """The first round with replaced groups; reasons and columns of all that was sampled."""
    sampling = run.config.sampling
    group, sampled, reasons = sampling.group_size, [now.columns], scores.reasons
    key = phase_key(state.key, state.step, "resample")
    spread = has_spread(now.columns.rewards, now.columns.valid, group)
    while not spread.all() and len(sampled) < sampling.max_rounds:
        round_key = jax.random.fold_in(key, len(sampled))
        new, _, scores = _sample(run, state.actor_params, next(data), round_key, pool, progress)
        sampled.append(new.columns)
        reasons = {name: count + scores.reasons[name] for name, count in reasons.items()}
        groups = choose_groups(spread, has_spread(new.columns.rewards, new.columns.valid, group))
        rows, prompts = group_rows(groups, group), [*now.prompts, *new.prompts]
        now = _Round(
            take_rows((now.rollout, new.rollout), rows, run.sampling_mesh),
            [prompts[i] for i in groups],
            _at(_joined((now.columns, new.columns)), rows),
        )
        spread = has_spread(now.columns.rewards, now.columns.valid, group)
    return now, reasons, _joined(sampled)


def _sample(
    run: Run,
    params: Params,
    prompts: Sequence[Prompt],
    key: jax.Array,
    pool: RewardPool,
    progress: Progress,
) -> tuple[_Round, Answers, Scores]:
    """One round: all groups of these prompts, and this process's answers with their scores."""
    num_chunks = run.config.sampling.chunks
    sampled = sample_in_chunks(run.sampler, params, prompts, key, run.sampling_mesh, num_chunks)
    chunks, chunk_scores = [], []
    # All chunks but the last are scored while the next one is being sampled.
    with progress.phase("sample"):
        for chunk in islice(sampled, num_chunks - 1):
            chunks.append(chunk)
            chunk_scores.append(_score(pool, chunk[1]))
        chunks.append(next(sampled))
    with progress.phase("score"):
        scores = join_scores([*chunk_scores, _score(pool, chunks[-1][1])])
        rollout, answers = join_chunks(chunks, run.sampling_mesh)
        local = Columns(
            scores.rewards, scores.valid, answers.truncated, answers.lengths, scores.by_function
        )
        columns = gather_rows(local, answers.rows, len(rollout.rewards))
    return _Round(rollout, prompts, columns), answers, scores


def _score(pool: RewardPool, answers: Answers) -> Scores:
    return pool.score(answers.problems, answers.completions, answers.answers, answers.records)


def _at(columns: Columns, rows: np.ndarray) -> Columns:
    return jax.tree.map(lambda x: x[rows], columns)


def _joined(columns: Sequence[Columns]) -> Columns:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *columns)


def _metrics(sampled: Columns, config: Config) -> dict[str, float]:
    """What dynamic sampling sampled in a step, and the rewards before its choice."""
    groups = len(sampled.rewards) // config.sampling.group_size
    spread = has_spread(sampled.rewards, sampled.valid, config.sampling.group_size)
    return {
        "rollout/rounds": groups / config.sampling.num_prompts,
        "rollout/groups_sampled": float(groups),
        "rollout/groups_sampled_without_spread": float(np.mean(~spread)),
        "rollout/reward_mean_sampled": float(
            sampled.rewards[sampled.valid].sum() / max(sampled.valid.sum(), 1)
        ),
    }
