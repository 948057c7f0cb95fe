"""Parts of an answer that hold no other answer: words, numerals, quantities, brackets."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from fractions import Fraction

from asyppo_jax.tasks.answers import units, words
from asyppo_jax.tasks.answers.grammar import parse
from asyppo_jax.tasks.answers.tokens import NotUnderstood, Token
from asyppo_jax.tasks.answers.values import (
    EMPTY,
    INFINITY,
    REALS,
    Apply,
    Chain,
    Clock,
    Expression,
    Listing,
    Number,
    Numeral,
    Quantity,
    Symbol,
    Value,
    Words,
    negative,
    terms,
)

_OPENING = ("(", "[", "{", "langle", "lfloor", "lceil", "begin")
_CLOSING = (")", "]", "}", "rangle", "rfloor", "rceil", "end")


def split(tokens: Sequence[Token], separates) -> tuple[list[list[Token]], list[Token]]:  # pyright: ignore[reportMissingParameterType]
    """The parts between the separators that are in no brackets, and these separators."""
    parts: list[list[Token]] = [[]]
    separators = []
    depth = bars = 0
    for token in tokens:
        depth += nesting(token)
        bars += token.is_sign("|")
        if depth == 0 and bars % 2 == 0 and separates(token):
            parts.append([])
            separators.append(token)
        else:
            parts[-1].append(token)
    if depth:
        raise NotUnderstood("brackets without their partners")
    return parts, separators


def nesting(token: Token) -> int:
    """1 for a token that opens a bracket, -1 for one that closes it, else 0."""
    if token.kind not in ("sign", "command"):
        return 0
    return (token.text in _OPENING) - (token.text in _CLOSING)


def bracket(token: Token) -> str | None:
    """The round or square bracket that a token is, or None."""
    if token.kind == "sign" and token.text in "()[]":
        return token.text
    return {"langle": "(", "rangle": ")"}.get(token.text) if token.kind == "command" else None


def is_pair(tokens: Sequence[Token]) -> bool:
    """Whether the first token opens a bracket that the last one closes."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += nesting(token)
        if depth == 0:
            return i == len(tokens) - 1 and i > 0
    return False


def unbraced(tokens: Sequence[Token]) -> Sequence[Token]:
    """Without braces around everything, which fonts and colours leave behind."""
    while tokens and tokens[0].is_sign("{") and is_pair(tokens):
        tokens = tokens[1:-1]
    return tokens


def text_value(tokens: Sequence[Token]) -> Value | None:
    """The value of a text without any mathematics: words, the empty set, infinity."""
    if not tokens or any(
        t.kind not in ("word", "number") and not _is_punctuation(t) for t in tokens
    ):
        return None
    texts = [token.text for token in tokens if token.kind == "word"]
    if not texts:
        return None
    phrase = " ".join(texts).lower()
    if phrase in words.EMPTY_SET:
        return EMPTY
    if phrase in words.INFINITE:
        return Quantity(INFINITY)
    if phrase in words.REAL_LINE:
        return Quantity(REALS)
    if any(token.kind == "number" for token in tokens):
        return None
    first = re.sub(r"^(?:(?:option|choice|answer|the|is) )+", "", phrase)
    if len(first) == 1 and len(texts[-1]) == 1:
        return Words((texts[-1],))
    if (
        len(texts) > 1
        and all(text.lower() in words.SEPARATORS for text in texts[1:-1:2])
        and len(texts) % 2
    ):
        return Listing(tuple(Words((text.lower(),)) for text in texts[::2]))
    return Words(tuple(text.lower() for text in texts if text.lower() not in ("the", "a", "an")))


def _is_punctuation(token: Token) -> bool:
    return token.kind == "sign" and token.text in "().,'-:;!?/{}"


def single_value(tokens: Sequence[Token]) -> Value | None:
    """The empty set, a numeral or a time of day, or None."""
    first = tokens[0]
    if len(tokens) == 1 and first.is_command("emptyset"):
        return EMPTY
    if len(tokens) == 2 and first.is_sign("-") and tokens[1].kind == "numeral":
        digits, base = tokens[1].parts
        return Numeral("-" + digits, base)
    if first.kind == "clock" and len(tokens) == 1:
        return Clock(*first.parts)
    if first.kind == "numeral" and len(tokens) == 1:
        return Numeral(*first.parts)
    if len(tokens) == 3 and tokens[1].is_word("base"):  # 41 base 7
        base = tokens[2].text
        base = words.BASES.get(base.lower(), base)
        if first.kind == "number" and base.isdigit():
            return Numeral(first.text, base)
    return None


def quantity(tokens: Sequence[Token]) -> Quantity:
    """An expression with its unit; raises `NotUnderstood`."""
    tokens, currency = _without_currency(list(tokens))
    end = next((i for i, token in enumerate(tokens) if i and _starts_unit(tokens, i)), len(tokens))
    core, tail = tokens[:end], tokens[end:]
    scale = 1
    while tail and tail[0].kind == "word" and tail[0].text.lower() in words.SCALES:
        scale *= words.SCALES[tail[0].text.lower()]
        tail = tail[1:]
    expression = parse(core)
    if isinstance(expression, Apply) and expression.function == "degree":
        expression, unit = expression.arguments[0], units.DEGREE
        if tail and tail[0].text.lower() in ("c", "f", "celsius", "fahrenheit"):
            unit = units.find_unit("°" + tail[0].text[0].lower())
            tail = tail[1:]
        currency = currency or unit
    if scale != 1:
        expression = terms("*", expression, Number(Fraction(scale)))
    try:
        unit = units.read_unit(tail) if tail else None
    except ValueError as error:
        raise NotUnderstood(str(error)) from error
    return Quantity(expression, unit or currency)


def _starts_unit(tokens: Sequence[Token], place: int) -> bool:
    token = tokens[place]
    if (
        token.kind == "word"
        or token.is_sign("%", "$")
        or token.is_command("%", "$", "euro", "pound")
    ):
        rest = tokens[place:]
        return token.kind == "word" or all(t.kind == "word" or t.text in "%$" for t in rest)
    after_degree = any(t.is_command("circ") for t in tokens[max(0, place - 3) : place])
    return (
        token.kind == "letter" and token.text in "CF" and after_degree and place == len(tokens) - 1
    )


def _without_currency(tokens: list[Token]) -> tuple[list[Token], units.Unit | None]:
    r"""Without a sign of money in front: \$18, -\$5, USD 20."""
    for i, token in enumerate(tokens[:2]):
        before = tokens[:i]
        if any(not t.is_sign("-", "+") for t in before):
            break
        known = (
            units.CURRENCIES.get(token.text)
            if token.kind != "word"
            else units.find_unit(token.text)
        )
        if known in units.CURRENCIES.values() and len(tokens) > i + 1:
            return before + tokens[i + 1 :], known
    return tokens, None


def name_of(value: Value) -> str:
    """The letter that a value is, or ""."""
    if isinstance(value, Quantity) and isinstance(value.expression, Symbol):
        return value.expression.name
    return ""


# --- plus or minus -------------------------------------------------------------------------------


def with_both_signs(value: Value) -> Value:
    r"""The value with each `a \pm b` as two members of a list."""
    if isinstance(value, Listing):
        members = itertools.chain.from_iterable(_both(member) for member in value.members)
        return dataclasses.replace(value, members=tuple(members))
    both = _both(value)
    return value if len(both) == 1 else Listing(tuple(both))


def _both(value: Value) -> list[Value]:
    if isinstance(value, Chain) and value.relations[-1] == "=":
        last = _both(value.sides[-1])
        if len(last) > 1:
            return [dataclasses.replace(value, sides=(*value.sides[:-1], side)) for side in last]
    if isinstance(value, Quantity) and _has_sign(value.expression):
        plus, minus = (_choose_sign(value.expression, sign) for sign in (1, -1))
        return [Quantity(plus, value.unit), Quantity(minus, value.unit)]
    return [value]


def _has_sign(expression: Expression) -> bool:
    if not isinstance(expression, Apply):
        return False
    return expression.function == "pm" or any(map(_has_sign, expression.arguments))


def _choose_sign(expression: Expression, sign: int) -> Expression:
    if not isinstance(expression, Apply):
        return expression
    arguments = tuple(_choose_sign(argument, sign) for argument in expression.arguments)
    if expression.function == "pm":
        return arguments[0] if sign > 0 else negative(arguments[0])
    return Apply(expression.function, arguments)
