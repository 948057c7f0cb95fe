"""The verdict on a completion: what its answer is, what it was compared with, and why.

Texts that are equal after cleaning are equal. Otherwise both become values, the answer in the
`Context` of the reference, and the reference's type chooses the rule that compares them.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from asyppo_jax.tasks.answers import compare, symbolic
from asyppo_jax.tasks.answers.corrections import CORRECTED
from asyppo_jax.tasks.answers.extract import final_answers
from asyppo_jax.tasks.answers.grammar import Calculus
from asyppo_jax.tasks.answers.numeric import NoValue, is_moderate
from asyppo_jax.tasks.answers.reading import plain, read
from asyppo_jax.tasks.answers.spelling import clean
from asyppo_jax.tasks.answers.tokens import Context, NotUnderstood
from asyppo_jax.tasks.answers.values import (
    Bracket,
    Chain,
    Combined,
    Dotted,
    Listing,
    Matrix,
    Quantity,
    Value,
    Words,
    symbols,
)
from asyppo_jax.tasks.answers.words import QUALIFIERS

MAX_LENGTH = 1000  # characters of an answer, or five times its reference; a longer one is wrong
MAX_NESTING = 40  # brackets inside each other


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and why; `extracted` is "" if the completion has no answer."""

    right: bool
    extracted: str
    compared: str  # the reference, as it was read
    reason: str


@dataclass(frozen=True)
class Reference:
    """A reference answer, read once: its value, or why it has none."""

    text: str
    plain: str
    value: Value | None
    problem: Exception | None
    contexts: tuple[Context, ...]  # what the reading of an answer may use, in order


def judge(completion: str, reference: str) -> Verdict:
    """The verdict on the final answer of a completion.

    Raises:
        ValueError: the reference is empty.
        Exception: math-verify failed in a comparison, so that the answer may be right.
    """
    readings = [read_reference(text) for text in (reference, *CORRECTED.get(reference, ()))]
    texts = final_answers(completion)
    if not texts:
        return Verdict(False, "", reference, "there is no answer")
    limit = max(MAX_LENGTH, 5 * len(reference))
    for text in texts:
        if len(text) > limit or _nesting(text) > MAX_NESTING:
            return Verdict(False, text[:limit], reference, "too long or too deep for an answer")
    verdicts = [_judge(expected, texts) for expected in readings]
    return next((verdict for verdict in verdicts if verdict.right), verdicts[0])


def _judge(expected: Reference, texts: Sequence[str]) -> Verdict:
    """The verdict on an answer by one reading of the reference."""
    for text in texts:
        if _same_text(expected, text):
            return Verdict(True, text, expected.text, "the same text")
    reason = ""
    for text in texts:
        try:
            right, reason = _compare(expected, text)
        except NotUnderstood as error:
            reason = f"not understood: {error}"
            continue
        return Verdict(right, text, expected.text, reason)
    return Verdict(False, texts[0], expected.text, reason)


@functools.lru_cache(maxsize=4096)
def read_reference(text: str) -> Reference:
    """The reference as a value; raises `ValueError` if it is empty."""
    if not text.strip():
        raise ValueError(f"the reference answer {text!r} cannot be read; fix or drop its record")
    try:
        value, problem = read(text), None
    except (NotUnderstood, NoValue) as error:
        value, problem = None, error
    return Reference(text, plain(text), value, problem, _contexts(value))


def _contexts(value: Value | None) -> tuple[Context, ...]:
    letters = symbols(value)
    context = Context(
        letters=frozenset(letter for letter in letters if len(letter) == 1),
        powers_of_ten=not _has_euler(value),
        bare_units=isinstance(value, Quantity) and not letters,
    )
    if isinstance(value, Listing | Bracket | Dotted | Matrix | Combined):
        lists = Context(context.letters, False, context.powers_of_ten, context.bare_units)
        return (lists, context) if isinstance(value, Listing) else (lists,)
    return (context,)


def _has_euler(value: Value | None) -> bool:
    return "Symbol(name='e')" in repr(value)


def _compare(expected: Reference, text: str) -> tuple[bool, str]:
    """(whether a text is equal to the reference, why); raises `NotUnderstood`."""
    if "\n" in expected.text.strip() and "\\" not in expected.text:
        return _grid(expected.text) == _grid(text), "compared row by row"
    if isinstance(expected.problem, Calculus):
        if not _is_moderate(text):  # math-verify would work on a tower of powers without an end
            return False, "not a formula, or one with very large values"
        return symbolic.equal(expected.text, text), f"compared by math-verify: {expected.problem}"
    if expected.value is None:
        return False, f"another text; the reference is not understood: {expected.problem}"
    kind, answer_kind = _kind(expected.value), ""
    for context in expected.contexts:
        answer = read(text, context)
        answer_kind = _kind(answer)
        try:
            if compare.equal(expected.value, answer):
                return True, f"equal as {kind}"
        except NoValue as error:
            return False, f"another text, and not comparable: {error}"
    same_kind = f"different as {kind}"
    return False, same_kind if kind == answer_kind else f"a {answer_kind}, not a {kind}"


def _kind(value: Value) -> str:
    return type(value).__name__.lower()


def _is_moderate(text: str) -> bool:
    if len(text) > symbolic.MAX_LENGTH:
        return False
    try:
        value = read(text)
    except Calculus:
        return True
    return isinstance(value, Quantity) and is_moderate(value.expression)


def _same_text(expected: Reference, text: str) -> bool:
    if plain(text) == expected.plain:
        return True
    word = re.fullmatch(r"[A-Za-z][A-Za-z .'-]*", expected.text.strip())
    return bool(word) and _word(text) == _word(expected.text)


def _word(text: str) -> str:
    r"""A word without \text{...} and blanks around it."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf|textit|mbox|operatorname)\s*\{", "{", text)
    return re.sub(r"[\s{}$.]+", "", text)


def _grid(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


# --- checks of references ------------------------------------------------------------------------


def text_only(reference: str) -> bool:
    """Whether only an answer with the same text is right, because the reference has no value."""
    expected = read_reference(reference)
    return expected.value is None and not isinstance(expected.problem, Calculus)


def says_nothing(reference: str) -> bool:
    """Whether the reference is an equation that holds for all values of its letters: x = x."""
    value = read_reference(reference).value
    if not isinstance(value, Chain) or set(value.relations) != {"="}:
        return False
    try:
        return all(compare.equal(value.sides[0], side) for side in value.sides[1:])
    except NoValue:
        return False


def says_less(reference: str) -> bool:
    """Whether the value leaves out words of the reference, such as `where n is odd`."""
    value = read_reference(reference).value
    words = re.findall(r"[a-z]+", clean(reference).lower())
    return (
        value is not None and not isinstance(value, Words) and not set(QUALIFIERS).isdisjoint(words)
    )
