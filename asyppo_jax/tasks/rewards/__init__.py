"""Verifiable rewards: a completion gets a float32 score in [0, 1], or is marked invalid."""

from asyppo_jax.tasks.answers.extract import last_boxed
from asyppo_jax.tasks.rewards.functions import RewardFunction, resolve_reward
from asyppo_jax.tasks.rewards.graders import exact, math
from asyppo_jax.tasks.rewards.pool import RewardPool, Scores, join_scores

__all__ = [
    "RewardFunction",
    "RewardPool",
    "Scores",
    "exact",
    "join_scores",
    "last_boxed",
    "math",
    "resolve_reward",
]
