r"""Sets of real numbers: intervals, inequalities, unions and points, in one form that compares.

x < 3, (-\infty, 3) and x \in (-\infty, 3) are one set; so are x \ne 1 and
(-\infty, 1) \cup (1, \infty).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyppo_jax.tasks.answers import arithmetic, numeric
from asyppo_jax.tasks.answers.values import (
    INFINITY,
    Bracket,
    Chain,
    Combined,
    Expression,
    Listing,
    Quantity,
    Symbol,
    Value,
    negative,
)

TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}  # the same bound, read from the other side
_REALS = ("mathbb R", "reals")


@dataclass(frozen=True)
class End:
    """An end of an interval: where it is, its value as a float, and whether it belongs to it."""

    expression: Expression
    value: float
    closed: bool


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`; a point if both are equal."""

    low: End
    high: End


@dataclass(frozen=True)
class RealSet:
    """Disjoint intervals in rising order; `name` is that of the letter in an inequality."""

    intervals: tuple[Interval, ...]
    name: str = ""


_LOWEST = End(negative(INFINITY), float("-inf"), closed=False)
_HIGHEST = End(INFINITY, float("inf"), closed=False)
ALL = RealSet((Interval(_LOWEST, _HIGHEST),))


def equal(a: RealSet, b: RealSet) -> bool:
    """Whether two sets have the same intervals; the letters of two inequalities must agree."""
    if a.name and b.name and a.name != b.name:
        return False
    if len(a.intervals) != len(b.intervals):
        return False
    pairs = zip(a.intervals, b.intervals, strict=True)
    return all(_same_end(x.low, y.low) and _same_end(x.high, y.high) for x, y in pairs)


def _same_end(a: End, b: End) -> bool:
    if a.closed != b.closed:
        return False
    if abs(a.value) == abs(b.value) == float("inf"):
        return a.value == b.value
    return arithmetic.equal(a.expression, b.expression)


def real_set(value: Value) -> RealSet | None:
    """The set of real numbers that a value is; None if it is none, or not one with known ends."""
    match value:
        case Bracket():
            return _interval(value)
        case Listing():
            return _points(value.members)
        case Combined():
            return _combined(value)
        case Chain(relations=("in",)):
            inner = real_set(value.sides[-1])
            return None if inner is None else RealSet(inner.intervals, _name(value.sides[0]))
        case Chain():
            return _bounds(value)
        case Quantity(expression=Symbol(name=name)) if name in _REALS:
            return ALL
    return None


def _name(side: Value) -> str:
    if isinstance(side, Quantity) and isinstance(side.expression, Symbol):
        return side.expression.name
    return ""


def _end(value: Value, closed: bool) -> End | None:
    if not isinstance(value, Quantity):
        return None
    expression = value.expression
    if expression in (INFINITY, negative(INFINITY)):
        return _HIGHEST if expression == INFINITY else _LOWEST
    if numeric.letters(expression):
        return None
    number = numeric.real_value(expression)
    return None if number is None else End(expression, number, closed)


def _interval(value: Bracket) -> RealSet | None:
    if len(value.members) != 2:
        return None
    low = _end(value.members[0], value.opening == "[")
    high = _end(value.members[1], value.closing == "]")
    if low is None or high is None or low.value >= high.value:
        return None
    return RealSet((Interval(low, high),))


def _points(members: Sequence[Value]) -> RealSet | None:
    ends = [_end(member, closed=True) for member in members]
    known = [end for end in ends if end is not None and abs(end.value) != float("inf")]
    if len(known) < len(ends):
        return None
    return RealSet(_union([Interval(end, end) for end in known]))


def _bounds(chain: Chain) -> RealSet | None:
    """a < x <= b, x > a, x != a."""
    places = [i for i, side in enumerate(chain.sides) if _name(side) and _end(side, False) is None]
    if len(places) != 1 or len(chain.sides) > 3:
        return None
    place, name = places[0], _name(chain.sides[places[0]])
    if chain.relations == ("!=",):
        point = _end(chain.sides[1 - place], closed=True)
        return None if point is None else RealSet(_minus(ALL.intervals, [point]), name)
    low, high = _LOWEST, _HIGHEST
    for i, relation in enumerate(chain.relations):
        if relation not in TURNED:
            return None
        other = i + 1 if place == i else i
        if abs(other - place) != 1 or place not in (i, i + 1):
            return None
        relation = relation if place == i else TURNED[relation]  # as if the letter stood in front
        end = _end(chain.sides[other], relation in ("<=", ">="))
        if end is None:
            return None
        if relation in ("<", "<="):
            if high is not _HIGHEST:
                return None
            high = end
        else:
            if low is not _LOWEST:
                return None
            low = end
    if low.value > high.value:
        return None
    return RealSet((Interval(low, high),), name)


def _combined(value: Combined) -> RealSet | None:
    sets = [real_set(part) for part in value.parts]
    known = [part for part in sets if part is not None]
    names = {part.name for part in known if part.name}
    if len(known) < len(sets) or len(names) > 1:
        return None
    name = names.pop() if names else ""
    intervals = known[0].intervals
    for part in known[1:]:
        if value.operator == "cup":
            intervals = _union([*intervals, *part.intervals])
        elif value.operator == "cap":
            crossed = _intersection(intervals, part.intervals)
            # `x < 1, x > 4` can only mean both rays.
            intervals = crossed or _union([*intervals, *part.intervals])
        else:
            if any(i.low.value != i.high.value for i in part.intervals):
                return None
            intervals = _minus(intervals, [i.low for i in part.intervals])
    return RealSet(intervals, name)


def _union(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    merged: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: (i.low.value, not i.low.closed)):
        last = merged[-1] if merged else None
        touches = last is not None and (
            interval.low.value < last.high.value
            or (interval.low.value == last.high.value and (interval.low.closed or last.high.closed))
        )
        if last is None or not touches:
            merged.append(interval)
        else:
            high = max(last.high, interval.high, key=lambda end: (end.value, end.closed))
            merged[-1] = Interval(last.low, high)
    return tuple(merged)


def _intersection(a: Sequence[Interval], b: Sequence[Interval]) -> tuple[Interval, ...]:
    crossed = []
    for x in a:
        for y in b:
            low = max(x.low, y.low, key=lambda end: (end.value, not end.closed))
            high = min(x.high, y.high, key=lambda end: (end.value, end.closed))
            if low.value < high.value or (low.value == high.value and low.closed and high.closed):
                crossed.append(Interval(low, high))
    return tuple(crossed)


def _minus(intervals: Sequence[Interval], points: Sequence[End]) -> tuple[Interval, ...]:
    rest = list(intervals)
    for point in points:
        gap = End(point.expression, point.value, closed=False)
        cut = []
        for interval in rest:
            if interval.low.value < point.value < interval.high.value:
                cut += [Interval(interval.low, gap), Interval(gap, interval.high)]
            elif interval.low.value == point.value < interval.high.value:
                cut.append(Interval(gap, interval.high))
            elif interval.low.value < point.value == interval.high.value:
                cut.append(Interval(interval.low, gap))
            elif interval.low.value != interval.high.value or interval.low.value != point.value:
                cut.append(interval)
        rest = cut
    return tuple(rest)
