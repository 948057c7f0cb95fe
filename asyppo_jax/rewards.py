"""The names of `asyppo_jax.tasks.rewards`, at the path that earlier documents showed."""

from asyppo_jax.tasks.rewards import RewardFunction as RewardFunction
from asyppo_jax.tasks.rewards import RewardPool as RewardPool
from asyppo_jax.tasks.rewards import Scores as Scores
from asyppo_jax.tasks.rewards import exact as exact
from asyppo_jax.tasks.rewards import join_scores as join_scores
from asyppo_jax.tasks.rewards import last_boxed as last_boxed
from asyppo_jax.tasks.rewards import math as math
from asyppo_jax.tasks.rewards import resolve_reward as resolve_reward
