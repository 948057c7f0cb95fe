"""The built-in graders: (problem, completion, answer) -> a score in [0, 1].

Worker processes load this file by its path. It imports the standard library and
`asyppo_jax.tasks.answers`, which needs no other package for most answers, so a worker starts soon.
"""

from asyppo_jax.tasks.answers.extract import final_answers, last_boxed
from asyppo_jax.tasks.answers.judge import judge

MAX_SHOWN = 150  # characters of a text in the details of a score


class Score(float):
    """A score with `details`, which `evaluate` writes beside the answer."""

    details: dict[str, str]

    def __new__(cls, score: float, **details: str) -> "Score":
        """The score; a long text in `details` is cut off."""
        number = super().__new__(cls, score)
        number.details = {name: text[:MAX_SHOWN] for name, text in details.items()}
        return number


def exact(problem: str, completion: str, answer: str) -> float:
    r"""1.0 if the last `\boxed{}`, or the completion without one, is the answer as text, or 0.0."""
    boxed = last_boxed(completion)
    final_answer = completion if boxed is None else boxed
    given, reference = final_answer.strip(), answer.strip()
    reason = "the same text" if given == reference else "another text"
    return Score(float(given == reference), extracted=given, compared=reference, reason=reason)


def math(problem: str, completion: str, answer: str) -> float:
    r"""1.0 if the final answer is right for the reference `answer`, else 0.0 (docs/answers.md).

    The final answer is the last `\boxed{}`, or what is marked as the answer, or the last number. A
    completion without an answer is wrong. The result is a `Score`: its details are the answer that
    was `extracted`, what it was `compared` with, and the `reason`.

    There is no time limit here: `RewardPool` kills the process from outside, which also works where
    a limit by signals does not.

    Raises:
        ValueError: the reference is empty.
        Exception: math-verify failed in a comparison. A failure of the grader does not make the
            answer wrong.
    """
    verdict = judge(completion, answer)
    return Score(
        float(verdict.right),
        extracted=verdict.extracted,
        compared=verdict.compared,
        reason=verdict.reason,
    )


def has_answer(problem: str, completion: str, answer: str) -> float:
    """1.0 if the completion has a final answer that `math` can compare, else 0.0."""
    return float(bool(final_answers(completion)))


# Graded once when a worker starts, so that its imports do not count as grading.
MATH_EXAMPLE = ("", r"\boxed{\frac{x^2 - 1}{x - 1}}", "x + 1")
