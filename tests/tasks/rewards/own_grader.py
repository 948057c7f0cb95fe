"""A user's reward function that calls the math grader, for test_pool.py."""

import sys

from asyppo_jax.tasks.rewards import math


def is_warm(problem: str, completion: str, answer: str) -> float:
    """0.5 for a right answer, and 0.5 if the math grader was loaded before this call."""
    warm = "mpmath" in sys.modules
    return 0.5 * math(problem, completion, answer) + 0.5 * warm
