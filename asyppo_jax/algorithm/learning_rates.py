"""The learning rates of a run by its steps, for its metrics and its first lines."""

import math
from typing import NamedTuple

from asyppo_jax.algorithm.train_step import warmup_steps
from asyppo_jax.config import Config, OptimizerConfig


class _Updates(NamedTuple):
    """Which steps update the actor or the critics, and how often."""

    settings: OptimizerConfig
    per_step: int
    first_step: int  # steps before it update the critics only; the run's first one is 1


def _all_updates(config: Config) -> dict[str, _Updates]:
    """Of the actor and, with critics, of the critics, by the area of their metrics."""
    batch = config.sampling.num_prompts * config.sampling.group_size
    algorithm, batching = config.algorithm, config.batching
    per_step = batch // batching.actor_minibatch_size * algorithm.actor_epochs
    actor = _Updates(config.actor_optimizer, per_step, warmup_steps(config) + 1)
    if not algorithm.num_critics:
        return {"actor": actor}
    per_step = batch // batching.critic_minibatch_size * algorithm.critic_epochs
    return {"actor": actor, "critic": _Updates(config.critic_optimizer, per_step, 1)}


def learning_rates(config: Config, step: int) -> dict[str, float]:
    """The metrics `actor/learning_rate` and `critic/learning_rate`: of the step's last update.

    The first step is 1. The actor's is absent in steps that update the critics only.
    """
    rates = {}
    for name, (settings, per_step, first_step) in _all_updates(config).items():
        if step >= first_step:
            earlier = (step - first_step + 1) * per_step - 1
            rates[f"{name}/learning_rate"] = _rate_after(earlier, settings)
    return rates


def _rate_after(updates: int, settings: OptimizerConfig) -> float:
    """`optimizer.learning_rate_schedule` in Python, which compiles nothing on any device."""
    rate, warmup, final = settings.learning_rate, settings.warmup_steps, settings.final_fraction
    if updates < warmup:
        return rate * updates / warmup
    if settings.schedule == "constant":
        return rate
    progress = min((updates - warmup) / settings.decay_steps, 1.0)
    if settings.schedule == "linear":
        return rate * (1 - progress * (1 - final))
    return rate * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)


def describe_early_ends(config: Config) -> list[str]:
    """A sentence for each learning rate whose decay ends before the run does."""
    sentences = []
    for name, (settings, per_step, first_step) in _all_updates(config).items():
        step = first_step + (settings.warmup_steps + settings.decay_steps) // per_step
        if settings.schedule == "constant" or step > config.num_steps:
            continue
        whose = {"actor": "the actor's", "critic": "the critics'"}[name]
        sentences.append(
            f"{whose} learning rate reaches its end, "
            f"{settings.final_fraction * settings.learning_rate:g}, in step {step} of "
            f"{config.num_steps}: config.{name}_optimizer.decay_steps is {settings.decay_steps}, "
            f"and a step has {per_step} update{'s' * (per_step != 1)}"
        )
    return sentences
