"""The built-in graders: (problem, completion, answer) -> a score in [0, 1].

This file imports the standard library only, because worker processes load it by its path, without
the package, and the parent process never needs math-verify.
"""

import functools
import importlib
import logging
import re
from typing import Any

# Without a box, the final answer is searched in the last characters of a completion only, because
# the time of math-verify's extraction is quadratic in the length (6 s for 30,000 characters).
FINAL_ANSWER_WINDOW = 2000

# An escaped character is one token, so that the brace of `\{` is not counted as a brace.
_TOKENS = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}` (balanced braces); None if there is none.

    With nested boxes, the inner one counts. The search is one pass, so its time is linear even for
    a text that repeats `\boxed{`.
    """
    opened: list[int | None] = []  # open braces: where a box's content starts, None for others
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
    r"""1.0 if the last `\boxed{}`, or the completion without one, is the answer as text, or 0.0."""
    boxed = last_boxed(completion)
    final_answer = completion if boxed is None else boxed
    return float(final_answer.strip() == answer.strip())


def math(problem: str, completion: str, answer: str) -> float:
    r"""1.0 if math-verify finds the final answer equal to the reference `answer`, else 0.0.

    The final answer is the last `\boxed{}`. Without a box it is what math-verify extracts from the
    end of the completion ("the answer is ...", then the last formula or number). A completion
    without an answer is wrong. There is no time limit here: `RewardPool` kills the process from
    outside, which also works where a limit by signals does not.

    Raises:
        ValueError: the reference cannot be read as mathematics.
        Exception: math-verify failed in a comparison and no other reading of the two answers was
            equal. A failure of the grader does not make the answer wrong.
    """
    math_verify = _math_verify()
    references = math_verify.parse(_box(answer), parsing_timeout=None)
    if not references:
        raise ValueError(f"the reference answer {answer!r} cannot be read; fix or drop its record")
    finals = _final_answers(completion)
    failure: Exception | None = None
    for reference in references:
        for final in finals:
            try:
                # The reference comes first, because the comparison is not symmetric.
                if math_verify.verify(reference, final, timeout_seconds=None, raise_on_error=True):
                    return 1.0
            except Exception as error:
                failure = error
    if failure is not None:
        raise failure
    return 0.0


def has_answer(problem: str, completion: str, answer: str) -> float:
    """1.0 if the completion has a final answer that `math` can compare, else 0.0."""
    return float(bool(_final_answers(completion)))


# Graded once when a worker starts, because the first symbolic comparison builds parsers and caches.
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
    end = completion[-FINAL_ANSWER_WINDOW:]
    # Start at a new line, because a formula cut in half would pair its `$` with the wrong one.
    return end[end.find("\n") + 1 :]


@functools.cache
def _math_verify() -> Any:
    # It warns in every process that its own time limits are off. They are off on purpose.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return importlib.import_module("math_verify")
