r"""One value out of an answer, and whether it is that of the reference, with units.

`x = 7`, `7` and `3 + 4 = 7` say one value; `2x = 7`, `8 = 7` and `7, 8` say none.
"""

import itertools
from collections.abc import Sequence
from fractions import Fraction

from asyppo_jax.tasks.answers import arithmetic, numeric
from asyppo_jax.tasks.answers.units import DEGREE, PERCENT, RADIAN, ratio
from asyppo_jax.tasks.answers.values import (
    CALL,
    Apply,
    Bracket,
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
    symbols,
    terms,
)

_APPROXIMATE = 0.02  # relative; the sides of `a \approx b` may differ by this
_ONE = Number(Fraction(1))
_HUNDREDTH = Number(Fraction(1, 100))


def is_name(side: Value) -> bool:
    r"""Whether a side can name a value: x, f(3), \cos C, a + b; but not 2x or x^2."""
    if isinstance(side, Bracket):
        return all(map(is_name, side.members))
    if not isinstance(side, Quantity):
        return False
    expression = side.expression
    if isinstance(expression, Symbol):
        return expression.name not in ("pi", "e", "i", "infty")
    if not isinstance(expression, Apply):
        return False
    letters = symbols(expression)
    if expression.function.startswith(CALL):
        return True
    if is_formula(side):
        return len(letters) > 1
    return bool(letters)


def _one_quantity(answer: Value) -> list[Quantity]:
    """The quantity that an answer says, or two that it calls about equal; [] for other answers."""
    match answer:
        case Quantity():
            return [answer]
        case Numeral(base="10"):
            return [Quantity(Number(Fraction(int(answer.digits))))]
        case Listing(members=(member,)):
            return _one_quantity(member)
        case Chain() if set(answer.relations) <= {"=", "approx"}:
            return _of_equation(answer)
    return []


def _of_equation(chain: Chain) -> list[Quantity]:
    sides = list(chain.sides)
    if not all(isinstance(side, Quantity) for side in sides):
        return []
    quantities = [side for side in sides if isinstance(side, Quantity)]
    first, last = quantities[0], quantities[-1]
    apart = symbols(first).isdisjoint(symbols(last)) or is_call(first)
    if is_name(first) and apart and (_is_simple_name(first) or not _is_simple_name(last)):
        quantities = quantities[1:]
    elif len(quantities) == 2 and apart and _is_simple_name(last):
        quantities = quantities[:1]  # 7 = x
    if "approx" in chain.relations:
        return quantities if _about_equal(quantities) else []
    pairs = itertools.pairwise(quantities)
    return quantities[-1:] if all(equal_quantity(a, b) for a, b in pairs) else []


def is_formula(side: Value) -> bool:
    """Whether a side is a sum, a product or a power, so that it belongs to an equation."""
    expression = side.expression if isinstance(side, Quantity) else None
    return isinstance(expression, Apply) and expression.function in ("+", "*", "/", "^", "root")


def _is_simple_name(quantity: Quantity) -> bool:
    return is_name(quantity) and (isinstance(quantity.expression, Symbol) or is_call(quantity))


def is_call(quantity: Quantity) -> bool:
    """Whether a quantity is an unknown function of something: f(x)."""
    expression = quantity.expression
    return isinstance(expression, Apply) and expression.function.startswith(CALL)


def _about_equal(quantities: Sequence[Quantity]) -> bool:
    values = [numeric.real_value(quantity.expression) for quantity in quantities]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return False
    return max(known) - min(known) <= _APPROXIMATE * max(map(abs, known))


def equal_quantity(reference: Quantity, answer: Value) -> bool:
    """Whether an answer says the one value of the reference."""
    choice = choice_letter(answer)
    if choice and isinstance(reference.expression, Symbol):
        return choice == reference.expression.name
    return any(_equal_units(reference, quantity) for quantity in _one_quantity(answer))


def choice_letter(answer: Value) -> str:
    """The letter of a choice such as (C); "" for other answers."""
    if isinstance(answer, Words) and len(answer.words) == 1 and len(answer.words[0]) == 1:
        return answer.words[0]
    return ""


def _equal_units(reference: Quantity, answer: Quantity) -> bool:
    expected, given = reference.expression, answer.expression
    if PERCENT in (reference.unit, answer.unit):
        return _equal_percent(reference, answer)
    if (reference.unit, answer.unit) == (DEGREE, RADIAN):
        return _equal_expressions(expected, Apply("/", (given, Apply("degree", (_ONE,)))))
    factor = ratio(reference.unit, answer.unit)
    if factor is None:
        return False
    if factor != 1:
        given = _simplified(terms("*", given, Number(factor)), given)
    return _equal_expressions(expected, given)


def _simplified(product: Expression, factor: Expression) -> Expression:
    """A product that is rational as a number, which keeps that it was written as a decimal."""
    value = arithmetic.exact(product)
    digits = factor.digits if isinstance(factor, Number) else 0
    return product if value is None else Number(value, digits)


def _equal_percent(reference: Quantity, answer: Quantity) -> bool:
    r"""45\% is 45, 0.45 and 45\%; 0.45 is 45\%; 45 is 45\% too, because the sign is its unit."""
    expected, given = reference.expression, answer.expression
    if reference.unit == answer.unit:
        return _equal_expressions(expected, given)
    if reference.unit == PERCENT:
        parts = _simplified(terms("*", expected, _HUNDREDTH), expected)
        same = answer.unit is None and _equal_expressions(expected, given)
        return same or (answer.unit is None and _equal_expressions(parts, given))
    parts = _simplified(terms("*", given, _HUNDREDTH), given)
    if reference.unit is None and _equal_expressions(expected, parts):
        return True
    size = None if symbols(expected) else numeric.real_value(expected)
    return reference.unit is None and (size or 0) >= 1 and _equal_expressions(expected, given)


def _equal_expressions(expected: Expression, given: Expression) -> bool:
    if expected == given:
        return True
    if arithmetic.equal(expected, given):
        return True
    # \log without a base is \ln; where the answer is exact, it may be the common logarithm too.
    if _has(expected, "log", 1) and (_has(given, "log", 2) or _has(given, "lg", 1)):
        return arithmetic.equal(_common_logs(expected), _common_logs(given))
    return False


def _has(expression: Expression, function: str, arguments: int) -> bool:
    if not isinstance(expression, Apply):
        return False
    if expression.function == function and len(expression.arguments) == arguments:
        return True
    return any(_has(argument, function, arguments) for argument in expression.arguments)


def _common_logs(expression: Expression) -> Expression:
    if not isinstance(expression, Apply):
        return expression
    arguments = tuple(map(_common_logs, expression.arguments))
    common = expression.function == "log" and len(arguments) == 1
    return Apply("lg" if common else expression.function, arguments)


def equal_numeral(reference: Numeral, answer: Value) -> bool:
    """Whether an answer has the digits of the reference, and no other base."""
    if isinstance(answer, Numeral):
        return answer == reference
    if isinstance(answer, Quantity) and isinstance(answer.expression, Number):
        number = answer.expression
        return answer.unit is None and not number.digits and str(number.value) == reference.digits
    if isinstance(answer, Words):
        return answer.words == (reference.digits,)
    return False


def equal_clock(reference: Clock, answer: Value) -> bool:
    """Whether an answer is the same time of day."""
    if not isinstance(answer, Clock):
        return False
    same = (reference.hours, reference.minutes) == (answer.hours, answer.minutes)
    return same and (reference.half == answer.half or "" in (reference.half, answer.half))
