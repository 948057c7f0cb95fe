r"""The language of answers: what an answer can be, as values that are compared by their types.

expression   Number, Symbol, Apply          3/4, 2\sqrt{3}, x^2 - 1, \sin t
Quantity     an expression with a unit      25 cm, 45\%, \$18, 80^\circ
Numeral      digits in a base               41_7, 0x3f
Clock        a time of day                  5:25 p.m.
Words        text                           \text{east}, (C)
Bracket      members between brackets       (1, 2), [0, \infty), \langle 1, 2 \rangle
Listing      members without order          4, 7 and \{4, 7\}; none: the empty set
Dotted       members in order, with dots    1, 2, \ldots, n
Combined     a union, intersection, ...     (0, 1) \cup (2, 3)
Chain        sides and relations            x = 5, y = 2x + 1, 0 < x \le 3, f(x) = 2x
Matrix       rows
"""

from dataclasses import dataclass
from fractions import Fraction

from asyppo_jax.tasks.answers.units import Unit


@dataclass(frozen=True)
class Number:
    """A rational number. `digits`: significant digits of a decimal as it is written, or 0."""

    value: Fraction
    digits: int = 0


@dataclass(frozen=True)
class Symbol:
    r"""A letter, with its index if it has one; also \infty, \mathbb{Z}."""

    name: str


@dataclass(frozen=True)
class Apply:
    """A function or an operator of expressions: `+`, `*`, `^`, `sqrt`, `sin`, ..."""

    function: str
    arguments: "tuple[Expression, ...]"


Expression = Number | Symbol | Apply


@dataclass(frozen=True)
class Quantity:
    """An expression, and its unit; None: no unit, or a noun that the table of units lacks."""

    expression: Expression
    unit: Unit | None = None


@dataclass(frozen=True)
class Numeral:
    """Digits of another base: they are compared as they are written."""

    digits: str
    base: str


@dataclass(frozen=True)
class Clock:
    """A time of day; `half` is "a", "p" or ""."""

    hours: str
    minutes: str
    half: str


@dataclass(frozen=True)
class Words:
    """A text: its words and numbers in lower case, without articles and punctuation."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Bracket:
    """A tuple, a vector or an interval: its brackets `( [ )  ]`, and its members in order."""

    opening: str
    members: "tuple[Value, ...]"
    closing: str


@dataclass(frozen=True)
class Listing:
    """Several values. `braces`: written as a set. `name`: that of `m = 2, 6, 9`."""

    members: "tuple[Value, ...]"
    braces: bool = False
    name: str = ""


@dataclass(frozen=True)
class Dotted:
    """A list with dots; None stands for the dots."""

    members: "tuple[Value | None, ...]"


@dataclass(frozen=True)
class Combined:
    """Sets joined by `cup`, `cap` or `setminus`; relations by `or` and `and` are such sets."""

    operator: str
    parts: "tuple[Value, ...]"


@dataclass(frozen=True)
class Chain:
    """`sides[0] relations[0] sides[1] ...`; one relation at least."""

    sides: "tuple[Value, ...]"
    relations: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of equal length."""

    rows: "tuple[tuple[Value, ...], ...]"


Value = Quantity | Numeral | Clock | Words | Bracket | Listing | Dotted | Combined | Chain | Matrix
EMPTY = Listing((), braces=True)
INFINITY = Symbol("infty")
REALS = Symbol("mathbb R")
CALL = "call"  # in front of the name of an unknown function: f(x) is Apply("call f", ...)


def symbols(value: "Value | Expression | None") -> frozenset[str]:
    """The names of all symbols in a value, except those of constants and infinity."""
    return frozenset(_symbols(value)) - {"infty", "pi", "e", "i"}


def _symbols(value: object) -> set[str]:
    if isinstance(value, Symbol):
        return {value.name}
    if isinstance(value, tuple):
        return set().union(*map(_symbols, value)) if value else set()
    if isinstance(value, Apply):
        return _symbols(value.arguments)
    fields = ("expression", "members", "parts", "sides", "rows")
    return set().union(*(_symbols(getattr(value, name, ())) for name in fields))


def terms(function: str, *arguments: Expression) -> Expression:
    """The application of an operator; sums and products take more and more arguments."""
    first = arguments[0]
    if function in ("+", "*") and isinstance(first, Apply) and first.function == function:
        return Apply(function, (*first.arguments, *arguments[1:]))
    return Apply(function, arguments)


def negative(expression: Expression) -> Expression:
    """The expression with the other sign; a number stays a number."""
    if isinstance(expression, Number):
        return Number(-expression.value, expression.digits)
    return Apply("*", (Number(Fraction(-1)), expression))
