r"""Texts become values: `read` splits an answer into parts, and says what each part is.

    answer  item { (, | ; | or | and) item }  [where ...]
    item    [words that lead in] side { (= | < | \le | \in | ...) side }
    side    set { (\cup | \cap | \setminus) set }
    set     ( answer ) | [ answer ] | \{ answer \} | matrix | numeral | time | expression [unit]

What is in none of these forms is not understood, and can only be equal as a text.
"""

import dataclasses
import re
from collections.abc import Sequence

from asyppo_jax.tasks.answers import units, words
from asyppo_jax.tasks.answers.grammar import parse
from asyppo_jax.tasks.answers.parts import (
    bracket,
    is_pair,
    name_of,
    nesting,
    quantity,
    single_value,
    split,
    text_value,
    unbraced,
    with_both_signs,
)
from asyppo_jax.tasks.answers.scanner import tokenize
from asyppo_jax.tasks.answers.spelling import clean
from asyppo_jax.tasks.answers.tokens import Context, NotUnderstood, Token
from asyppo_jax.tasks.answers.values import (
    EMPTY,
    Bracket,
    Chain,
    Combined,
    Dotted,
    Listing,
    Matrix,
    Quantity,
    Symbol,
    Value,
)

_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "in": "in", "notin": "notin",
    "approx": "approx", "equiv": "equiv", "subset": "subset", "subseteq": "subset", "sim": "sim",
    "to": "to", "implies": "implies", "ll": "<", "gg": ">", "cong": "cong", "perp": "perp",
    "parallel": "parallel", "propto": "propto",
}  # fmt: skip
_SETS = ("cup", "cap", "setminus")
_NUMBER_SETS = (*(f"mathbb {name}" for name in "RZNQC"), "reals", "integers", "naturals")
_MATRICES = ("pmatrix", "bmatrix", "matrix", "vmatrix", "Bmatrix", "smallmatrix", "array")
MAX_MEMBERS = 200
MAX_DEPTH = 20


def read(text: str, context: Context | None = None) -> Value:
    """The value of a text.

    Raises:
        NotUnderstood: the text has none, or more than one that nothing joins.
    """
    context = context or Context()
    return _answer(tokenize(clean(text), context), context)


def plain(text: str) -> str:
    """The text as tokens without blanks: equal for texts that differ in spelling alone."""
    try:
        tokens = tokenize(clean(text), Context())
    except NotUnderstood:
        return re.sub(r"\s+", "", clean(text))
    return " ".join(f"{t.kind[0]}{t.text}" for t in _without_braces(tokens)).strip()


def _without_braces(tokens: Sequence[Token]) -> list[Token]:
    """Without braces around one token: x^{2} is x^2."""
    kept: list[Token] = []
    for i, token in enumerate(tokens):
        last, second = tokens[i - 1] if i else None, tokens[i - 2] if i > 1 else None
        if token.is_sign("}") and second is not None and second.is_sign("{") and last is not None:
            del kept[-2]
        else:
            kept.append(token)
    return kept


# --- answers and items ---------------------------------------------------------------------------


def _answer(tokens: Sequence[Token], context: Context, depth: int = 0) -> Value:
    if depth > MAX_DEPTH:
        raise NotUnderstood("an answer that is nested too deeply")
    tokens = unbraced(tokens)
    text = text_value(tokens)
    if text is not None:
        return text
    tokens = _without_qualifier(tokens, context)
    items, separators = split(tokens, lambda token: token.is_sign(",", ";") or _joins(token))
    items = [item for item in items if item]
    if not items:
        raise NotUnderstood("an empty answer")
    if len(items) > MAX_MEMBERS:
        raise NotUnderstood("a list that is too long")
    if any(len(item) == 1 and item[0].is_command("ldots") for item in items):
        dots = [
            None if item[0].is_command("ldots") else _item(item, context, depth) for item in items
        ]
        return Dotted(tuple(dots))
    values = [_item(item, context, depth) for item in items]
    values = [value for value in values if len(values) == 1 or not _says_where(value, context)]
    joined = _join(values, separators)
    return with_both_signs(joined)


def _joins(token: Token) -> bool:
    return token.is_word(*words.SEPARATORS)


def _without_qualifier(tokens: Sequence[Token], context: Context) -> Sequence[Token]:
    """Without `where a is ...` behind a formula; behind a number such words are refused later."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += nesting(token)
        starts = token.is_word(*words.QUALIFIERS) or token.is_command("forall")
        if i and depth == 0 and starts and not context.bare_units:
            before = tokens[:i]
            return before[:-1] if before[-1].is_sign(",", ";", "(") else before
    return tokens


def _says_where(value: Value, context: Context) -> bool:
    r"""Whether a member only says for which letters the others hold: k \in \mathbb{Z}."""
    if context.bare_units or not isinstance(value, Chain) or value.relations[-1] != "in":
        return False
    last = value.sides[-1]
    return isinstance(last, Quantity) and name_of(last) in _NUMBER_SETS


def _join(values: list[Value], separators: Sequence[Token]) -> Value:
    if len(values) == 1:
        return values[0]
    if not values:
        raise NotUnderstood("a list without members")
    chains = [value for value in values if isinstance(value, Chain)]
    bounds = [chain for chain in chains if set(chain.relations) & {"<", ">", "<=", ">=", "!="}]
    if len(bounds) == len(values):
        union = any(separator.is_word("or") for separator in separators)
        return Combined("cup" if union else "cap", tuple(values))
    first = values[0]
    if len(chains) == 1 and chains == [first] and isinstance(first, Chain):  # m = 2, 6, 9
        name = name_of(first.sides[0])
        if first.relations == ("=",) and name:
            return Listing((first.sides[-1], *values[1:]), name=name)
    return Listing(tuple(values))


def _item(tokens: Sequence[Token], context: Context, depth: int) -> Value:
    tokens = _without_lead(tokens)
    sides, relations = split(tokens, lambda token: _relation(token) is not None)
    if len(sides) > 1 and not sides[0]:  # `= 5`
        if _relation(relations[0]) not in ("=", "approx"):
            raise NotUnderstood("a bound without a name")
        sides, relations = sides[1:], relations[1:]
    if len(sides) == 1:
        return _side(sides[0], context, depth)
    values: list[Value] = []
    for i, side in enumerate(sides):
        name = i == 0 and relations[0].is_sign("=")
        if name and any(token.kind == "word" for token in side):
            values.append(_named(side))
        elif name and side[0].kind == "letter" and is_pair(side[1:]) and side[1].is_sign("("):
            values.append(Quantity(parse(side, functions=side[0].text)))  # N(n) = ...
        else:
            values.append(_side(side, context, depth))
    return Chain(tuple(values), tuple(_relation(token) or "" for token in relations))


def _relation(token: Token) -> str | None:
    return _RELATIONS.get(token.text) if token.kind in ("sign", "command") else None


def _named(tokens: Sequence[Token]) -> Value:
    r"""A name in words, in front of an equals sign: \text{Area} = 5."""
    texts = [token.text for token in tokens if token.kind in ("word", "letter")]
    if not words.OBSTACLES.isdisjoint(text.lower() for text in texts):
        raise NotUnderstood("words that change the value stand in front of it")
    return Quantity(Symbol(" ".join(texts)))


def _without_lead(tokens: Sequence[Token]) -> Sequence[Token]:
    """Without words that lead to a value: `the answer is 9`. Others in front are refused."""
    count = next((i for i, token in enumerate(tokens) if token.kind != "word"), len(tokens))
    if not count or count == len(tokens) or tokens[count].is_sign("="):
        return tokens
    texts = [token.text.lower() for token in tokens[:count]]
    follows = tokens[count]
    if len(texts) == 1 and units.find_unit(texts[0]) in units.CURRENCIES.values():
        return tokens
    leads = texts[-1] in words.COPULAS or follows.is_sign(":") or set(texts) <= set(words.LABELS)
    if not leads or not words.OBSTACLES.isdisjoint(texts):
        raise NotUnderstood(f"{' '.join(texts)} in front of the value")
    return tokens[count + follows.is_sign(":") :]


# --- sides -------------------------------------------------------------------------------------


def _side(tokens: Sequence[Token], context: Context, depth: int) -> Value:
    parts, operators = split(tokens, lambda token: token.is_command(*_SETS))
    if len(parts) > 1:
        sets = tuple(_side(part, context, depth) for part in parts)
        names = {operator.text for operator in operators}
        if len(names) > 1 or ("setminus" in names and len(sets) > 2):
            raise NotUnderstood("several operators of sets")
        return Combined(names.pop(), sets)
    tokens = unbraced(tokens)
    if not tokens:
        raise NotUnderstood("a relation without one of its sides")
    text = text_value(tokens)
    if text is not None:
        return text
    single = single_value(tokens)
    if single is not None:
        return single
    enclosed = _enclosed(tokens, context, depth)
    return quantity(tokens) if enclosed is None else enclosed


def _enclosed(tokens: Sequence[Token], context: Context, depth: int) -> Value | None:
    """The value of tokens in brackets that hold more than one expression, or a set; else None."""
    first, last = tokens[0], tokens[-1]
    if first.is_command("begin"):
        return _matrix(tokens, context, depth)
    inside = tokens[1:-1]
    if len(tokens) < 2 or not is_pair(tokens):
        return None
    if inside and inside[0].is_command("begin") and bracket(first):
        return _matrix(inside, context, depth)
    if first.is_command("{") and last.is_command("}"):
        return _set(inside, context, depth)
    opening, closing = bracket(first), bracket(last)
    if opening is None or closing is None:
        return None
    members, separators = split(inside, lambda token: token.is_sign(",", ";"))
    if not separators:
        return None if opening + closing in ("()", "[]") and first.text != "langle" else _fail()
    inner = _answer(inside, dataclasses.replace(context, comma_groups=False), depth + 1)
    values = inner.members if isinstance(inner, Listing) and not inner.braces else (inner,)
    if isinstance(inner, Dotted) or len(values) != len(members):
        raise NotUnderstood("brackets that hold more than values")
    return Bracket(opening, tuple(v for v in values if v is not None), closing)


def _fail() -> Value:
    raise NotUnderstood("brackets that do not match")


def _set(inside: Sequence[Token], context: Context, depth: int) -> Value:
    if not inside:
        return EMPTY
    parts, bars = _split_set_builder(inside)
    if bars:  # {x | x > 3}: the condition says what the set is
        return _answer(parts[1], context, depth + 1)
    inner = _answer(inside, context, depth + 1)
    if isinstance(inner, Listing) and not inner.braces:
        return Listing(inner.members, braces=True)
    return inner if isinstance(inner, Dotted) else Listing((inner,), braces=True)


def _split_set_builder(tokens: Sequence[Token]) -> tuple[list[Sequence[Token]], bool]:
    for i, token in enumerate(tokens):
        if token.is_sign("|", ":") and 0 < i < len(tokens) - 1:
            relations = any(_relation(t) not in (None, "in") for t in tokens[i:])
            if relations and sum(t.is_sign("|") for t in tokens) <= 1:
                return [tokens[:i], tokens[i + 1 :]], True
    return [tokens], False


def _matrix(tokens: Sequence[Token], context: Context, depth: int) -> Value:
    texts = [token.text for token in tokens]
    try:
        start, end = texts.index("}", 1) + 1, len(texts) - 1 - texts[::-1].index("end")
    except ValueError:
        raise NotUnderstood("a matrix without an end") from None
    name = "".join(texts[2 : start - 1])
    if name not in _MATRICES or "".join(texts[end:]) != f"end{{{name}}}":
        raise NotUnderstood(f"\\begin{{{name}}} in an answer")
    if name == "array" and texts[start] == "{":
        start = texts.index("}", start) + 1
    rows, _ = split(tokens[start:end], lambda token: token.is_command("\\"))
    cells = [split(row, lambda token: token.is_sign("&"))[0] for row in rows if row]
    values = tuple(tuple(_answer(cell, context, depth + 1) for cell in row) for row in cells)
    if not values or len({len(row) for row in values}) > 1:
        raise NotUnderstood("rows of different lengths")
    return Matrix(values)
