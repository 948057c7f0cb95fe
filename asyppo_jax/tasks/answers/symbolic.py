r"""math-verify, for the formulas that the language of answers lacks: integrals, sums, limits.

It is asked only where it is reliable. It folds letters to lower case, drops a last letter as a
unit, and takes a number out of a formula that it cannot read. So both formulas must have the same
letters, in one case, and neither may be a list, a text or a relation.
"""

import functools
import importlib
import logging
import re
from typing import Any

from asyppo_jax.tasks.answers.spelling import clean

MAX_LENGTH = 300
_OTHER = re.compile(r"[=<>,;]|\\(?:text|le|ge|ne|in|cup|cap|pm|ldots)(?![a-z])")


def equal(reference: str, answer: str) -> bool:
    """Whether math-verify finds two formulas equal; False where it should not be asked.

    Raises:
        Exception: whatever math-verify raises in a comparison.
    """
    reference, answer = clean(reference), clean(answer)
    if max(len(reference), len(answer)) > MAX_LENGTH:
        return False
    if _OTHER.search(_without_bounds(reference)) or _OTHER.search(_without_bounds(answer)):
        return False
    letters = [_letters(text) for text in (reference, answer)]
    if any(len({letter.lower() for letter in found}) < len(found) for found in letters):
        return False
    if not letters[1] <= letters[0]:
        return False
    math_verify = _math_verify()
    parsed = [math_verify.parse(f"${text}$", parsing_timeout=None) for text in (reference, answer)]
    formulas = [[value for value in values if not isinstance(value, str)][:1] for values in parsed]
    if not all(formulas):
        return False
    return bool(math_verify.verify(*formulas, timeout_seconds=None, raise_on_error=True))


def _without_bounds(text: str) -> str:
    r"""Without indices, where `=` belongs to \sum_{k=1}."""
    return re.sub(r"_\s*\{[^{}]*\}", "", text)


def _letters(text: str) -> frozenset[str]:
    return frozenset(
        re.findall(r"(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z])", re.sub(r"\\[a-zA-Z]+", " ", text))
    )


@functools.cache
def _math_verify() -> Any:
    # It warns in every process that its own time limits are off. They are off on purpose.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return importlib.import_module("math_verify")
