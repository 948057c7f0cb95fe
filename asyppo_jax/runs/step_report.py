"""What a run prints about a step: answers without a score, equal rewards, samples."""

import numpy as np

from asyppo_jax.config import Config, ConfigError
from asyppo_jax.runs.collect import Collected
from asyppo_jax.runs.metrics import MetricWriter
from asyppo_jax.runs.progress import Progress, format_samples
from asyppo_jax.runs.setup import Run, print_once
from asyppo_jax.runtime.multi_host import is_first, sum_over_hosts
from asyppo_jax.sampling.sampler import Answers
from asyppo_jax.tasks.rewards import RewardPool, Scores

_UNSCORED_STEPS = 3  # in a row, after which a run ends


def mean_of_each_reward(scores: Scores) -> dict[str, float]:
    """Where several functions make the reward, the mean of each over all valid answers."""
    sums = {name: np.sum(x[scores.valid]) for name, x in scores.by_function.items()}
    sums, count = sum_over_hosts((sums, np.float32(scores.valid.sum())))
    return {f"rollout/reward_{name}": float(x / max(count, 1)) for name, x in sums.items()}


def metrics_of_rollout(collected: Collected, sampling_seconds: float) -> dict[str, float]:
    """What the host knows of a rollout; the step has the metrics that need its arrays."""
    return {
        **mean_of_each_reward(collected.scores),
        **collected.metrics,
        "rollout/truncated_fraction": float(collected.columns.truncated.mean()),
        "rollout/tokens_per_s": collected.sampled_tokens / sampling_seconds,
    }


def without_actor(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of a step in which the actor was not updated: those of its update are NaN."""
    of_actor = ("actor/", "rollout/log_prob_gap", "ensemble/low_std_", "ensemble/high_std_")
    return {name: x for name, x in metrics.items() if not name.startswith(of_actor)}


def check_scored(metrics: dict[str, float], run: Run, pool: RewardPool) -> None:
    """Raises `ConfigError` if no held-out answer got a reward before the first step."""
    total = len(run.eval_prompts) * run.config.evaluation.num_samples
    if metrics["evaluate/invalid"] == total:
        raise ConfigError(
            f"none of the {total} answers to the held-out problems got a reward from "
            f"{run.config.reward.function}: {pool.failure or 'see the messages above'}; "
            f"{pool.fix or 'correct the function'}"
        )


def count_unscored(
    config: Config, pool: RewardPool, step: int, metrics: dict[str, float], before: int
) -> int:
    """The number of steps in a row without a scored answer, of which `before` came before this one.

    Raises:
        ConfigError: it has become three: a broken reward function, and nothing more can be learnt.
    """
    sampling = config.sampling
    if metrics["rollout/reward_invalid"] < sampling.num_prompts * sampling.group_size:
        return 0
    if before + 1 < _UNSCORED_STEPS:
        print_once(
            f"WARNING: step {step}: NO ANSWER HAS A SCORE ({pool.failure or 'see above'}), so the "
            f"step taught nothing; {_UNSCORED_STEPS} such steps in a row end the run"
        )
        return before + 1
    raise ConfigError(
        f"no answer of the last {_UNSCORED_STEPS} steps got a reward from "
        f"{config.reward.function}: {pool.failure or 'see the messages above'}; "
        f"{pool.fix or 'correct the function'}, and run the same command to continue from the last "
        "checkpoint"
    )


def warn_if_nothing_can_be_learnt(
    config: Config, step: int, metrics: dict[str, float], progress: Progress
) -> bool:
    """Prints a line if all rewards of a step are equal; returns whether it did."""
    if metrics["rollout/reward_std"] > 1e-6:  # equal rewards have a std of a rounding error
        return False
    sampling = config.sampling
    none = metrics["rollout/reward_invalid"] == sampling.num_prompts * sampling.group_size
    what = (
        "no answer has a reward" if none else f"every reward is {metrics['rollout/reward_mean']:g}"
    )
    progress.print(
        f"step {step}: {what}, so nothing can be learnt from it; if this goes on, see "
        "docs/troubleshooting.md, 'rollout/reward_mean stays 0 or 1'"
    )
    return True


def print_step(
    config: Config,
    step: int,
    metrics: dict[str, float],
    answers: Answers,
    scores: Scores,
    progress: Progress,
    writer: MetricWriter,
) -> None:
    """Prints answers without a score, a log-prob gap that is too large, and samples."""
    reasons = {name: int(count) for name, count in sum_over_hosts(scores.reasons).items()}
    if any(reasons.values()):
        progress.print(f"step {step}: answers without a score: {reasons}")
    gap, bound = metrics.get("rollout/log_prob_gap", 0.0), config.algorithm.log_prob_gap_bound
    if gap > bound:
        advice = 'set config.actor.dtype = "float32"'
        if config.algorithm.old_log_probs == "rollout":
            advice += ' or config.algorithm.old_log_probs = "recompute"'
        progress.print(
            f"step {step}: the log-probs of sampler and learner differ by {gap:.3g} nats per token "
            f"on average, more than config.algorithm.log_prob_gap_bound = {bound:g}; {advice}"
        )
    every = config.log.samples_every
    if is_first() and every and (step % every == 0 or step == config.num_steps):
        rows = np.linspace(0, len(answers.problems) - 1, config.log.num_samples).astype(int)
        samples = format_samples(
            step,
            [answers.prompts[i] for i in rows],
            [answers.completions[i] for i in rows],
            [float(scores.rewards[i]) for i in rows],
            [bool(scores.valid[i]) for i in rows],
        )
        progress.print(samples)
        writer.write_text(step, "samples", samples)
