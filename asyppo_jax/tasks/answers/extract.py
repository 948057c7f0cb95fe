r"""Where the final answer of a completion is.

Only what stands behind the last `</think>` counts, if anything does. There, in this order:

1. the content of `<answer>...</answer>`,
2. the last `\boxed{...}` or `\fbox{...}` that is not empty; boxes that only "or", "and", a comma or
   a name joins are one answer with several values,
3. the line behind the last `####` that is no heading of a step,
4. the sentence behind the last "answer is" or "answer:",
5. the last formula or number, near the end, unless the text is cut off within a box or a formula.
"""

import re
from typing import NamedTuple

from asyppo_jax.tasks.answers.words import OBSTACLES, SEPARATORS

# Without a mark, the answer is searched in the last characters only: a number far from the end is
# a step, not the answer.
WINDOW = 2000

# An escaped character is one token, so that the brace of `\{` is not counted as a brace.
_TOKENS = re.compile(
    r"\\(?:boxed|fbox)\s*(?P<brace>\{)|\\(?:boxed|fbox)\s*(?P<bare>-?\d[\d.,]*|\\frac\s*\d\s*\d)"
    r"|\\.|[{}]",
    re.DOTALL,
)
_JOINT = re.compile(
    r"[\s$.,;:\\()]*(?:\\(?:quad|qquad|text\{\s*(?:or|and|,)\s*\})|or|and|,|;)?[\s$,;:\\()]*"
    r"(?:\$?\s*[A-Za-z](?:_\{?\w+\}?)?\s*=\s*)?\$?\s*"
)
_OPEN_TAG, _CLOSED_TAG = "<answer>", "</answer>"
_HASHES = re.compile(r"####[ \t]*([^\n]*\S)")
# In Markdown, `####` begins a heading, too: "#### Step 2: divide", "#### 2. Divide".
_STEP = re.compile(
    r"[*_\s]*(?:(?:(?:sub)?case|step|part|section|method|approach|example)\b|\d+[.)]\s+[*_]*[A-Za-z])",
    re.IGNORECASE,
)
_MARK = re.compile(
    r"\banswers?\b\**\s*(?:is|are|was|would be|=|:|\*\*:)[\s:]*(?:\*\*)?", re.IGNORECASE
)
_SENTENCE = re.compile(
    r"(?:\$\$.*?\$\$|\\\[.*?\\\]|\$[^$\n]*\$|.)*?(?:[.?](?=\s|$)|\n|$)", re.DOTALL
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_DISPLAY = re.compile(r"(?<!\\)\\[\[\]]")  # not the "\\[2pt]" of a matrix
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_PLAIN_NUMBER = (
    r"-?[$€£]?\s?-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)(?:/\d+)?)(?:[eE][+-]?\d+)?%?"
)
_NUMBER = re.compile(rf"(?<![\w.]){_PLAIN_NUMBER}(?!\w)")
_FIRST = re.compile(rf"\W*?({_PLAIN_NUMBER})(?![\w.]\w)(?P<rest>.*)", re.DOTALL)


_NOTHING = re.compile(r"[\s.$~]|(?<!\\)[{}]")


class Box(NamedTuple):
    """A box with content: the span of its content, and that of the box itself."""

    start: int
    end: int
    outer_start: int
    outer_end: int


def boxes(text: str) -> list[Box]:
    r"""The boxes of a text that hold no other box, in order; empty ones are left out.

    The search is one pass, so its time is linear even for a text that repeats `\boxed{`.
    """
    opened: list[tuple[int, int] | None] = []  # open braces: the start of a box, None for others
    found: list[Box] = []
    for token in _TOKENS.finditer(text):
        if token["brace"]:
            opened.append((token.end(), token.start()))
        elif token["bare"]:
            content = token["bare"].rstrip(".,")
            start = token.start("bare")
            found.append(Box(start, start + len(content), token.start(), start + len(content)))
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            box = opened.pop()
            inner = found and box is not None and found[-1].start >= box[0]
            content = text[box[0] : token.start()] if box is not None else ""
            if box is not None and not inner and _NOTHING.sub("", content):
                found.append(Box(box[0], token.start(), box[1], token.end()))
    return found


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` or `\fbox{...}` that is not empty, or None."""
    last = max(boxes(text), default=None, key=lambda box: box.start)
    return None if last is None else text[last.start : last.end]


def final_answers(completion: str) -> list[str]:
    """The final answer; where it is a sentence, also the formula and the number in it.

    The first of these texts that can be read is the answer. The list is empty if there is none.
    """
    text = _behind_thought(completion)
    tagged = _in_tags(text)
    if tagged:
        text = tagged
    found = boxes(text)
    if found:
        return [_joined(text, found)]
    if tagged:
        return [tagged]
    end = len(text.rstrip())
    hashes = [
        line[1]
        for line in _HASHES.finditer(text)
        if not _is_heading(line[1], is_last=line.end() == end)
    ]
    if hashes:
        return [hashes[-1]]
    for mark in reversed(list(_MARK.finditer(text))):
        texts = _in_sentence(text[mark.end() :].lstrip())
        if texts:
            return texts
    return _last_value(text)


def _behind_thought(completion: str) -> str:
    before, tag, behind = completion.rpartition("</think>")
    if not tag:
        return completion
    return behind if behind.strip() else before


def _in_tags(text: str) -> str:
    """The content of the last tags; "" without."""
    lower = text.lower()
    end = lower.rfind(_CLOSED_TAG)
    start = lower.rfind(_OPEN_TAG, 0, max(end, 0))
    return "" if start < 0 else text[start + len(_OPEN_TAG) : end].strip()


def _is_heading(line: str, *, is_last: bool) -> bool:
    """Whether a line behind `####` names a step, or has words alone and more text behind it."""
    return bool(_STEP.match(line)) or not (is_last or re.search(r"[\d$\\]", line))


def _joined(text: str, found: list[Box]) -> str:
    """The last box, and the boxes before it that belong to the same answer."""
    last = len(found) - 1
    first = last
    while first > 0:
        between = text[found[first - 1].outer_end : found[first].outer_start]
        if len(between) > 40 or not _JOINT.fullmatch(between) or re.search(r"[.:]\s", between):
            break
        first -= 1
    contents = [text[box.start : box.end].strip() for box in found[first:]]
    return " , ".join(dict.fromkeys(contents))


def _in_sentence(text: str) -> list[str]:
    match = _SENTENCE.match(text[:WINDOW])
    sentence = match[0].strip().rstrip(".?").strip("* ") if match else ""
    if not re.search(r"\w", sentence):
        return []
    texts = [sentence]
    formula = _FORMULA.match(sentence)
    if formula and not _continues(sentence[formula.end() :]):
        texts.append(next(filter(None, formula.groups())))
    number = _FIRST.match(sentence)
    if number and not _continues(number["rest"]):
        texts.append(number[1])
    return texts


def _continues(rest: str) -> bool:
    """Whether what follows a value in its sentence changes it, or adds another one."""
    words = re.findall(r"[a-z]+", rest.lower())[:4]
    value = re.match(r"\W*?[-+*/^=<>:\\]", rest) or re.match(r"\s*,?\s*\$?\d", rest)
    return (
        bool(value) or not OBSTACLES.isdisjoint(words) or bool(words[:1] and words[0] in SEPARATORS)
    )


def _last_value(text: str) -> list[str]:
    if _is_cut_off(text):
        return []  # what stands before is a step
    if len(text) > WINDOW:
        text = text[-WINDOW:]
        # Start at a new line, because a formula cut in half would pair its `$` with the wrong one.
        text = text[text.find("\n") + 1 :]
    for line in reversed(text.splitlines()):
        formulas = [match for match in _FORMULA.finditer(line)]
        numbers = list(_NUMBER.finditer(line))
        numbers = [n for n in numbers if re.search(r"\d", n[0])]
        if formulas and (not numbers or numbers[-1].start() < formulas[-1].end()):
            return [next(filter(None, formulas[-1].groups()))]
        if numbers:
            return [numbers[-1][0].strip()]
    formulas = [match for match in _FORMULA.finditer(text)]
    return [next(filter(None, formulas[-1].groups()))] if formulas else []


def _is_cut_off(text: str) -> bool:
    """Whether a text ends within a box or a displayed formula."""
    if _DISPLAY.findall(text)[-1:] == [r"\["]:
        return True
    tail = text[max((box.start() for box in _BOX.finditer(text)), default=len(text)) :]
    return "\n" not in tail and tail.count("{") > tail.count("}")
