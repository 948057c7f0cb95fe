"""A user's reward function on top of the math grader, for test_pool.py."""

import sys

from asyppo_jax.tasks.rewards import math


def is_warm(problem: str, completion: str, answer: str) -> float:
    """Half a point for a right answer, half for a grader that had been loaded before it."""
    warm = "math_verify" in sys.modules
    return 0.5 * math(problem, completion, answer) + 0.5 * warm
