"""The mean reward on held-out problems, measured with the training sampler."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from asyppo_jax.config import Config
from asyppo_jax.evaluation.statistics import Interval, average_interval
from asyppo_jax.runtime.multi_host import gather_rows
from asyppo_jax.sampling.rollouts import one_ahead
from asyppo_jax.sampling.sampler import Answers, Sampler, read_answers
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.types import Params, Rollout


class Evaluation(NamedTuple):
    """Metrics of one evaluation; answers that could not be scored take no part in the reward."""

    accuracy: float  # mean reward over all scored answers: avg@k for k samples per problem
    invalid: int  # answers that could not be scored
    truncated: float  # fraction of answers without a stop token
    completion_length: float  # mean, tokens
    interval: Interval  # 95%, of that mean, for problems drawn from a population of problems

    def metrics(self) -> dict[str, float]:
        return {
            "evaluate/accuracy": self.accuracy,
            "evaluate/accuracy_low": self.interval.low,
            "evaluate/accuracy_high": self.interval.high,
            "evaluate/invalid": float(self.invalid),
            "evaluate/truncated_fraction": self.truncated,
            "evaluate/completion_length_mean": self.completion_length,
        }


def evaluate(
    sampler: Sampler,
    params: Params,
    prompts: Sequence[Prompt],
    pool: RewardPool,
    key: jax.Array,
    config: Config,
    mesh: Mesh,
    *,
    save_first_batch: Callable[[Rollout, np.ndarray, np.ndarray], None] | None = None,
) -> Evaluation:
    """Metrics of `config.evaluation.num_samples` sampled and scored answers per prompt.

    Each process scores the answers of its own devices; all processes return the same metrics over
    all answers. After the scoring, `save_first_batch` is called once with the rollout of the first
    `config.evaluation.batch_size` prompts, and the rewards of all answers and whether each is valid
    [len(prompts) * num_samples].
    """
    batch_results, first_rollout = [], None
    size, samples = config.evaluation.batch_size, config.evaluation.num_samples
    total = len(prompts) * samples
    batches = list(_batches(prompts, size))
    starts = (
        partial(sampler, params, batch, jax.random.fold_in(key, i), mesh)
        for i, batch in enumerate(batches)
    )
    # The host scores a batch while the devices sample the next one.
    for i, (batch, rollout) in enumerate(zip(batches, one_ahead(starts), strict=True)):
        if save_first_batch is not None and i == 0:
            first_rollout = rollout
        answers: Answers = read_answers(rollout, batch, sampler)
        rows = answers.rows + i * size * samples
        # The last batch is filled up with repeated prompts, which must not be counted.
        count = int((rows < total).sum())
        scores = pool.score(
            answers.problems[:count],
            answers.completions[:count],
            answers.answers[:count],
            answers.records[:count],
        )
        columns = rows, scores.rewards, scores.valid, answers.truncated, answers.lengths
        batch_results.append([column[:count] for column in columns])
    rows, *columns = map(np.concatenate, zip(*batch_results, strict=True))
    rewards, valid, truncated, lengths = gather_rows(columns, rows, total)
    if save_first_batch is not None and first_rollout is not None:
        save_first_batch(first_rollout, rewards, valid)
    scored = rewards[valid]
    complete = valid.reshape(-1, samples).all(axis=1)  # problems of which every answer has a score
    by_problem = rewards.reshape(-1, samples)[complete]
    return Evaluation(
        accuracy=float(scored.mean()) if scored.size else float("nan"),
        invalid=int((~valid).sum()),
        truncated=float(truncated.mean()),
        completion_length=float(lengths.mean()),
        interval=average_interval(by_problem) if complete.any() else Interval(np.nan, np.nan),
    )


def _batches(prompts: Sequence[Prompt], size: int) -> Iterator[list[Prompt]]:
    for start in range(0, len(prompts), size):
        batch = list(prompts[start : start + size])
        yield batch + [prompts[0]] * (size - len(batch))
