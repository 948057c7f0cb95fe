r"""Are two expressions equal? Exactly where all is rational, else by their values (`numeric`).

2^{-70} is neither 2^{-71} nor 0, and \sqrt{8} is 2\sqrt{2}. A decimal stands for an exact value
that no decimal can express if it is that value to six decimals or more: 0.333333 is 1/3, 0.333 is
not. Of a value below 0.1, six significant digits count.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from asyppo_jax.tasks.answers.numeric import NoValue, equal_by_value, real_fraction
from asyppo_jax.tasks.answers.values import Expression, Number, Symbol

MIN_DIGITS = 6  # of a decimal that stands for a value which no decimal can express
FLOAT_DIGITS = 15  # decimals that are at least this long are the output of a float
MAX_BITS = 100_000  # of an exact integer; larger ones are evaluated as floats


def equal(reference: Expression, answer: Expression) -> bool:
    """Whether two expressions have the same value, for all values of their letters.

    Raises:
        NoValue: one of them has a function that is not known, or a value that is too large.
    """
    if reference == answer:
        return True
    exact_reference, exact_answer = exact(reference), exact(answer)
    if exact_reference is not None and exact_answer is not None:
        if exact_reference == exact_answer:
            return True
        return _rounded(reference, answer, exact_reference, exact_answer)
    if isinstance(reference, Number) and reference.digits:
        return _stands_for(reference, answer)
    if isinstance(answer, Number) and answer.digits:
        return _stands_for(answer, reference)
    return equal_by_value(reference, answer)


def exact(expression: Expression) -> Fraction | None:
    """The value of a rational expression; None if it has letters, roots, functions or is too large.

    Raises:
        NoValue: a division by zero.
    """
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Symbol):
        return None
    values = [exact(argument) for argument in expression.arguments]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or expression.function not in _EXACT:
        return None
    if any(_bits(value) > MAX_BITS for value in known):
        return None
    return _EXACT[expression.function](*known)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _divide(numerator: Fraction, denominator: Fraction) -> Fraction:
    if denominator == 0:
        raise NoValue("a division by zero")
    return numerator / denominator


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return _exact_root(base, exponent)
    if base == 0 and exponent <= 0:
        raise NoValue("a power of zero")
    if _bits(base) * abs(exponent.numerator) > MAX_BITS:
        return base if base in (0, 1) else None
    return base ** int(exponent)


def _exact_root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """base**exponent where it is rational: 8^{2/3}, sqrt(9/4)."""
    if base < 0 or exponent.denominator > 64:
        return None
    roots = [_whole_root(n, exponent.denominator) for n in (base.numerator, base.denominator)]
    if None in roots:
        return None
    return _power(Fraction(roots[0] or 0, roots[1] or 1), Fraction(exponent.numerator))


def _whole_root(number: int, degree: int) -> int | None:
    root = (
        math.isqrt(number)
        if degree == 2
        else round(number ** (1 / degree))
        if number < 2**900
        else 0
    )
    return root if root**degree == number else None


def _factorial(value: Fraction) -> Fraction | None:
    if value.denominator != 1 or not 0 <= value <= 5000:
        return None
    return Fraction(math.factorial(int(value)))


def _binomial(top: Fraction, bottom: Fraction) -> Fraction | None:
    if top.denominator != 1 or bottom.denominator != 1 or not 0 <= bottom <= top <= 5000:
        return None
    return Fraction(math.comb(int(top), int(bottom)))


def _whole(function: Callable[..., int]) -> Callable[..., Fraction | None]:
    def of_fractions(*values: Fraction) -> Fraction | None:
        if any(value.denominator != 1 for value in values):
            return None
        return Fraction(function(*map(int, values)))

    return of_fractions


_EXACT: dict[str, Callable[..., Any]] = {
    "+": lambda *values: sum(values, Fraction(0)),
    "*": lambda *values: math.prod(values, start=Fraction(1)),
    "/": _divide,
    "^": _power,
    "root": lambda base, degree: _power(base, _divide(Fraction(1), degree)),
    "abs": abs,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "factorial": _factorial,
    "binom": _binomial,
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
    "max": max,
    "min": min,
}


# --- decimals ------------------------------------------------------------------------------------


def _rounded(a: Expression, b: Expression, value_a: Fraction, value_b: Fraction) -> bool:
    """Whether two different rational values are one value and a decimal that stands for it."""
    decimal_a, decimal_b = _is_decimal(a), _is_decimal(b)
    if decimal_a and decimal_b:
        digits = max(_digits(a), _digits(b))
        larger = max(abs(value_a), abs(value_b))
        return digits >= FLOAT_DIGITS and abs(value_a - value_b) * 10**14 <= larger
    if decimal_a and isinstance(a, Number):
        return _is_rounding(a, value_b)
    if decimal_b and isinstance(b, Number):
        return _is_rounding(b, value_a)
    return False


def _digits(expression: Expression) -> int:
    return expression.digits if isinstance(expression, Number) else 0


def _is_decimal(expression: Expression) -> bool:
    """Whether the value is written, or could be written, as a decimal with an end."""
    value = expression.value if isinstance(expression, Number) else exact(expression)
    if value is None:
        return False
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _is_rounding(decimal: Number, value: Fraction) -> bool:
    """Whether a decimal is the value, rounded or cut off behind its last digit."""
    if decimal.digits < MIN_DIGITS or not decimal.value or not value:
        return False
    unit = Fraction(10) ** (_magnitude(decimal.value) - decimal.digits)
    scale = Fraction(10) ** min(_magnitude(value), 0)  # six decimals; of small values, six digits
    if unit > scale / 10**MIN_DIGITS:
        return False
    return abs(decimal.value - value) <= min(unit, scale / (2 * 10**MIN_DIGITS))


def _magnitude(value: Fraction) -> int:
    """The number of digits before the decimal point; less than 0 with zeros behind it."""
    logarithm = math.log10(abs(value.numerator)) - math.log10(value.denominator)
    return math.floor(logarithm) + 1


def _stands_for(decimal: Number, expression: Expression) -> bool:
    if decimal.digits < MIN_DIGITS:
        return equal_by_value(decimal, expression)
    value = real_fraction(expression)
    return value is not None and _is_rounding(decimal, value)
