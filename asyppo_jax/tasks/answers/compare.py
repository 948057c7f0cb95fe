r"""Which answers are right for a reference: one rule for each type of the reference.

    reference    right answers
    Quantity     an equal value: alone, behind `name =`, or as the last side of a true equation;
                 for \mathbb{R} also the same set
    Numeral      the same digits in the same base, or without one
    Clock        the same time; a.m. and p.m. differ where both are given
    Words        the same words; (C) and C are one choice
    Bracket      members that are equal in order, between the same brackets; for an interval also an
                 inequality, for a tuple a column of a matrix
    Listing      members that are equal in any order
    Dotted       members that are equal in order, dots at the same places
    Combined     the same set of real numbers
    Chain        the same equation or inequality, the value behind `name =`, the set behind \in
    Matrix       entries that are equal

Everything else is wrong, even where it contains the right answer: more values than the reference
has, a bound, a multiple, an equation that is false.
"""

from collections.abc import Sequence

from asyppo_jax.tasks.answers import arithmetic, real_sets
from asyppo_jax.tasks.answers.numeric import NoValue, proportional
from asyppo_jax.tasks.answers.quantities import (
    choice_letter,
    equal_clock,
    equal_numeral,
    equal_quantity,
    is_call,
    is_formula,
    is_name,
)
from asyppo_jax.tasks.answers.values import (
    Apply,
    Bracket,
    Chain,
    Clock,
    Combined,
    Dotted,
    Expression,
    Listing,
    Matrix,
    Numeral,
    Quantity,
    Symbol,
    Value,
    Words,
    negative,
    terms,
)


def equal(reference: Value, answer: Value) -> bool:
    """Whether the answer is right; see the module's docstring.

    Raises:
        NoValue: the two differ as texts, and have no values that can be compared.
    """
    match reference:
        case Quantity():
            # Of quantities, only \mathbb{R} is a set.
            return equal_quantity(reference, answer) or _equal_sets(reference, answer)
        case Numeral():
            return equal_numeral(reference, _last(answer))
        case Clock():
            return equal_clock(reference, _last(answer))
        case Words():
            return _equal_words(reference, _last(answer))
        case Bracket():
            return _equal_bracket(reference, _last(answer))
        case Listing():
            return _equal_listing(reference, answer)
        case Dotted():
            return isinstance(answer, Dotted) and _in_order(reference.members, answer.members)
        case Combined():
            return _equal_sets(reference, answer)
        case Chain():
            return _equal_chain(reference, answer)
        case Matrix():
            return _equal_matrix(reference, _last(answer))


def _last(answer: Value) -> Value:
    r"""The value of `name = value` and of `name \in set`; other answers as they are."""
    if not isinstance(answer, Chain) or answer.relations not in (("=",), ("in",)):
        return answer
    return answer.sides[-1] if is_name(answer.sides[0]) else answer


# --- rules ---------------------------------------------------------------------------------------


def _equal_words(reference: Words, answer: Value) -> bool:
    if isinstance(answer, Words):
        return answer == reference
    choice = choice_letter(reference)
    if isinstance(answer, Quantity) and isinstance(answer.expression, Symbol):
        return choice == answer.expression.name
    return False


def _equal_bracket(reference: Bracket, answer: Value) -> bool:
    brackets = reference.opening + reference.closing
    if isinstance(answer, Bracket):
        same = brackets == answer.opening + answer.closing
        return same and _in_order(reference.members, answer.members)
    if isinstance(answer, Matrix) and brackets == "()":
        return _in_order(reference.members, _vector(answer))
    if isinstance(answer, Listing) and brackets == "()" and not answer.braces:
        return not answer.name and _in_order(reference.members, answer.members)
    return _equal_sets(reference, answer)


def _vector(matrix: Matrix) -> tuple[Value, ...]:
    """The entries of a row or a column; () for other matrices."""
    if len(matrix.rows) == 1:
        return matrix.rows[0]
    return tuple(row[0] for row in matrix.rows) if len(matrix.rows[0]) == 1 else ()


def _in_order(reference: Sequence[Value | None], answer: Sequence[Value | None]) -> bool:
    if len(reference) != len(answer):
        return False
    for expected, given in zip(reference, answer, strict=True):
        if expected is None or given is None:
            if expected is not given:
                return False
        elif not equal(expected, given):
            return False
    return True


def _equal_listing(reference: Listing, answer: Value) -> bool:
    members = reference.members
    answer = _last(answer)
    if isinstance(answer, Bracket) and not reference.braces:
        return answer.opening + answer.closing == "()" and _in_order(members, answer.members)
    if not isinstance(answer, Listing):
        if len(members) == 1 or (members and all(equal(members[0], m) for m in members[1:])):
            return equal(members[0], answer)
        return not isinstance(answer, Quantity) and _equal_sets(reference, answer)
    if reference.name and answer.name and reference.name != answer.name:
        return False
    given = _without_name(answer.members) if _is_unnamed(members) else answer.members
    expected = _without_name(members) if _is_unnamed(answer.members) else members
    return _same_members(expected, given)


def _is_unnamed(members: Sequence[Value]) -> bool:
    return not any(isinstance(member, Chain) for member in members)


def _without_name(members: Sequence[Value]) -> tuple[Value, ...]:
    """x = 3, x = -3 as 3, -3; members with several names as they are."""
    names = {m.sides[0] for m in members if isinstance(m, Chain) and m.relations == ("=",)}
    if len(names) == 1 and is_name(next(iter(names))):
        return tuple(m.sides[-1] if isinstance(m, Chain) else m for m in members)
    return tuple(members)


def _same_members(expected: Sequence[Value], given: Sequence[Value]) -> bool:
    """Whether each expected member has a partner of its own among the given ones."""
    if len(expected) != len(given):
        return False
    rest = list(given)
    for member in expected:
        place = next((i for i, other in enumerate(rest) if _comparable_equal(member, other)), None)
        if place is None:
            return False
        del rest[place]
    return True


def _comparable_equal(member: Value, other: Value) -> bool:
    try:
        return equal(member, other)
    except NoValue:
        return member == other


def _equal_sets(reference: Value, answer: Value) -> bool:
    expected, given = real_sets.real_set(reference), real_sets.real_set(answer)
    if expected is not None and given is not None:
        return real_sets.equal(expected, given)
    if isinstance(reference, Combined) and isinstance(answer, Combined):
        if reference.operator != answer.operator:
            return False
        if reference.operator == "setminus":
            return _in_order(reference.parts, answer.parts)
        return _same_members(reference.parts, answer.parts)
    return False


# --- equations and inequalities ------------------------------------------------------------------


def _equal_chain(reference: Chain, answer: Value) -> bool:
    if reference.relations == ("in",):
        return equal(reference.sides[-1], answer)
    if set(reference.relations) == {"approx"}:
        return any(equal(side, answer) for side in reference.sides)
    if set(reference.relations) != {"="}:
        return _equal_inequality(reference, answer)
    value = reference.sides[-1]
    named = is_name(reference.sides[0]) and not is_formula(reference.sides[0])
    if not isinstance(answer, Chain):
        return named and equal(value, answer)
    if set(answer.relations) != {"="}:
        return False
    if _is_definition(reference) and _is_definition(answer):
        return _equal_functions(reference, answer)
    if named and len(reference.sides) == 2 and reference.sides[0] == answer.sides[0]:
        middle = all(equal(value, side) for side in answer.sides[1:])
        if middle:
            return True
    if len(reference.sides) == len(answer.sides) > 2:
        return _in_order(reference.sides, answer.sides)
    if len(reference.sides) != len(answer.sides):
        return False
    return _proportional(reference, answer) != 0


def _is_definition(chain: Chain) -> bool:
    first = chain.sides[0]
    return isinstance(first, Quantity) and is_call(first)


def _equal_functions(reference: Chain, answer: Chain) -> bool:
    """f(t) = t^2 and f(x) = x^2 are one function; f(2) = 4 and f(2) = 5 are different values."""
    calls = [
        side.expression
        for side in (reference.sides[0], answer.sides[0])
        if isinstance(side, Quantity)
    ]
    expected, given = (call.arguments if isinstance(call, Apply) else () for call in calls)
    if len(expected) != len(given):
        return False
    renamed: dict[str, Expression] = {}
    for new, old in zip(expected, given, strict=True):
        if isinstance(old, Symbol):
            renamed[old.name] = new
        elif not arithmetic.equal(new, old):
            return False
    body = answer.sides[-1]
    if isinstance(body, Quantity):
        body = Quantity(_rename(body.expression, renamed), body.unit)
    return equal(reference.sides[-1], body)


def _rename(expression: Expression, names: dict[str, Expression]) -> Expression:
    if isinstance(expression, Symbol):
        return names.get(expression.name, expression)
    if isinstance(expression, Apply):
        arguments = tuple(_rename(argument, names) for argument in expression.arguments)
        return Apply(expression.function, arguments)
    return expression


def _equal_inequality(reference: Chain, answer: Value) -> bool:
    if _equal_sets(reference, answer):
        return True
    if not isinstance(answer, Chain) or len(reference.relations) != len(answer.relations):
        return False
    if reference.relations == answer.relations and _same_sides(reference, answer.sides):
        return True
    turned = tuple(real_sets.TURNED.get(relation, relation) for relation in answer.relations[::-1])
    if reference.relations == turned and _same_sides(reference, answer.sides[::-1]):
        return True
    if len(reference.relations) > 1 or not set(reference.relations) <= set(real_sets.TURNED):
        return False
    sign = _proportional(reference, answer)
    direction = answer.relations if sign > 0 else turned
    return sign != 0 and reference.relations == direction


def _same_sides(reference: Chain, sides: Sequence[Value]) -> bool:
    try:
        return _in_order(reference.sides, sides)
    except NoValue:
        return reference.sides == tuple(sides)


def _proportional(reference: Chain, answer: Chain) -> int:
    """The sign of c if the differences of the two sides are equal up to a factor c; else 0."""
    differences = []
    for chain in (reference, answer):
        left, right = chain.sides
        if not (isinstance(left, Quantity) and isinstance(right, Quantity)):
            return 0
        differences.append(terms("+", left.expression, negative(right.expression)))
    return proportional(*differences)


def _equal_matrix(reference: Matrix, answer: Value) -> bool:
    if isinstance(answer, Bracket) and answer.opening + answer.closing == "()":
        return bool(_vector(reference)) and _in_order(_vector(reference), answer.members)
    if not isinstance(answer, Matrix) or len(reference.rows) != len(answer.rows):
        return False
    return all(map(_in_order, reference.rows, answer.rows))
