"""The built-in graders: (problem, completion, answer) -> a score in [0, 1].

Only the standard library is imported here: worker processes load this file by its path, without the
package around it, and the parent never needs math-verify.
"""

import functools
import importlib
import logging
import re
from typing import Any

# Characters at the end of a completion without a box in which its final answer is looked for: the
# extraction's patterns take time quadratic in the length (6 s for 30,000 characters).
FINAL_ANSWER_WINDOW = 2000

# An escaped character is a token of its own, so that the brace of `\{` does not count.
_TOKENS = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""What stands in the balanced braces of the last complete `\boxed{...}`; None without one.

    Of nested boxes the inner one counts. One pass: a text that repeats `\boxed{` costs no more
    than another.
    """
    opened: list[int | None] = []  # where a box's content starts; None for any other brace
    last: tuple[int, int] | None = None
    for token in _TOKENS.finditer(text):
        if token[0].startswith(r"\boxed"):
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, token.start())
    return None if last is None else text[last[0] : last[1]]


def exact(problem: str, completion: str, answer: str) -> float:
    r"""1.0 if the last `\boxed{}`, or else the completion, stripped, is the answer as text."""
    boxed = last_boxed(completion)
    given = completion if boxed is None else boxed
    return float(given.strip() == answer.strip())


def math(problem: str, completion: str, answer: str) -> float:
    r"""1.0 if math-verify finds the final answer equal to the reference `answer`, else 0.0.

    The final answer is the last `\boxed{}`; without one, what math-verify extracts from the end of
    the completion ("the answer is ...", then the last formula or number). No answer found is a
    wrong answer. There is no time limit here: `RewardPool` ends the process from outside, which
    also works where a limit by signals does not.

    Raises:
        ValueError: the reference itself cannot be read as mathematics.
        Exception: whatever math-verify meets in a comparison, unless another reading of the two
            answers is equal; a failure of the grader is not a wrong answer.
    """
    math_verify = _math_verify()
    references = math_verify.parse(_box(answer), parsing_timeout=None)
    if not references:
        raise ValueError(f"the reference answer {answer!r} cannot be read; mend or drop its record")
    finals = _final_answers(completion)
    failure: Exception | None = None
    for reference in references:
        for final in finals:
            try:
                # In this order: the reference first, the comparison is not symmetric.
                if math_verify.verify(reference, final, timeout_seconds=None, raise_on_error=True):
                    return 1.0
            except Exception as error:
                failure = error
    if failure is not None:
        raise failure
    return 0.0


def has_answer(problem: str, completion: str, answer: str) -> float:
    """1.0 if there is anything in the completion that `math` would compare, else 0.0."""
    return float(bool(_final_answers(completion)))


# Graded once as a worker starts: the first symbolic comparison builds parsers and caches.
MATH_EXAMPLE = ("", r"\boxed{\frac{x^2 - 1}{x - 1}}", "x + 1")


def _final_answers(completion: str) -> list[Any]:
    boxed = last_boxed(completion)
    text = _final_part(completion) if boxed is None else _box(boxed)
    return _math_verify().parse(text, parsing_timeout=None)


def _box(text: str) -> str:
    return rf"\boxed{{{text}}}"


def _final_part(completion: str) -> str:
    if len(completion) <= FINAL_ANSWER_WINDOW:
        return completion
    part = completion[-FINAL_ANSWER_WINDOW:]
    # From the start of a line, because a formula cut in half pairs its `$` with the wrong one.
    return part[part.find("\n") + 1 :]


@functools.cache
def _math_verify() -> Any:
    # It warns in every process that its own time limits are off, which is meant.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return importlib.import_module("math_verify")
