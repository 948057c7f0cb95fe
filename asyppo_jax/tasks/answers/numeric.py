r"""Values of expressions with mpmath, to 30 and to 90 digits, at fixed points for their letters.

Two expressions are equal if their difference vanishes as the precision grows, however small their
values are. Two different formulas agree at all points with probability 0.
"""

import functools
import importlib
import math
import zlib
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from asyppo_jax.tasks.answers.values import CALL, INFINITY, Apply, Expression, Number, Symbol

MAX_MAGNITUDE = 2_000  # bits of an argument of a periodic function or of an exponent
MAX_FRACTION = 100_000  # bits of a value that becomes a fraction
MAX_MODERATE = 1_000  # bits before or behind the point of a moderate value
COARSE, FINE = 30, 90  # decimal digits
NUM_POINTS = 4
# Letters that are whole numbers by custom: (-1)^n and n! have values there.
_WHOLE_LETTERS = "nkmjNKMJ"


class NoValue(ArithmeticError):
    """An expression without a value that can be computed here."""


def equal_by_value(a: Expression, b: Expression) -> bool:
    """Whether the values of two expressions agree at all points; see the module's docstring."""
    if _is_infinite(a) != _is_infinite(b):
        return False
    points = _points(letters(a) | letters(b))
    decided = real = 0
    for number, point in enumerate(points):
        verdict = _agree(a, b, point)
        if verdict is None:
            continue
        same, is_real = verdict
        # Behind the first points letters are negative. Roots and logarithms have other branches
        # there, so that only real values count.
        if number >= NUM_POINTS and not is_real:
            continue
        if not same:
            return False
        decided, real = decided + 1, real + is_real
    if decided < min(2, len(points)):
        raise NoValue("no point where both expressions have a value")
    return True


def _is_infinite(expression: Expression) -> bool:
    if isinstance(expression, Apply):
        return any(map(_is_infinite, expression.arguments))
    return expression == INFINITY


def proportional(a: Expression, b: Expression) -> int:
    """1 or -1, the sign of c, if a = c * b for a constant c other than 0; else 0.

    Raises:
        NoValue: as `equal`.
    """
    mp = _mpmath()
    factor: Any = None
    compared = 0
    for point in _points(letters(a) | letters(b)):
        with mp.workdps(2 * COARSE):
            value_a, value_b = _evaluate(a, point), _evaluate(b, point)
            if value_a is None or value_b is None:
                continue
            tiny = mp.mpf(10) ** -COARSE
            if abs(value_a) < tiny or abs(value_b) < tiny:
                return 0
            ratio = value_a / value_b
            if factor is not None and abs(ratio - factor) > abs(factor) * tiny:
                return 0
            factor, compared = ratio, compared + 1
    if compared < 2 or factor is None or abs(mp.im(factor)) > abs(factor) * 1e-20:
        return 0
    return 1 if mp.re(factor) > 0 else -1


def is_moderate(expression: Expression) -> bool:
    """Whether no part of an expression has a very large or a very small value, or none at all."""
    try:
        value = _evaluate(expression, _points(letters(expression))[0])
    except NoValue:
        return False
    if value is None or (value and abs(_mpmath().mag(value)) > MAX_MODERATE):
        return False
    return not isinstance(expression, Apply) or all(map(is_moderate, expression.arguments))


def real_value(expression: Expression) -> float | None:
    """The value of an expression without letters as a float; None if it is not real."""
    if expression == INFINITY:
        return math.inf
    if letters(expression):
        return None
    value = _evaluate(expression, {})
    mp = _mpmath()
    if value is None or abs(mp.im(value)) > 1e-12 * (1 + abs(value)):
        return None
    return float(mp.re(value))


def real_fraction(expression: Expression) -> Fraction | None:
    """The value of an expression to 30 digits; None with letters, or if it is 0 or not real."""
    mp = _mpmath()
    with mp.workdps(COARSE):
        value = None if letters(expression) else _evaluate(expression, {})
        if value is None or abs(mp.im(value)) > abs(value) * mp.mpf(10) ** -25:
            return None
        real = mp.re(value)
        if not real or abs(mp.mag(real)) > MAX_FRACTION:
            return None
        sign, mantissa, exponent, _ = real._mpf_
    fraction = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return -fraction if sign else fraction


def _agree(a: Expression, b: Expression, point: dict[str, Any]) -> tuple[bool, bool] | None:
    """(whether both have the same value, whether it is real), or None where one has no value."""
    mp = _mpmath()
    with mp.workdps(COARSE):
        value_a, value_b = _evaluate(a, point), _evaluate(b, point)
        if value_a is None or value_b is None:
            return None
        real = abs(mp.im(value_a)) <= abs(value_a) * mp.mpf(10) ** (-COARSE // 2)
        coarse, size = abs(value_a - value_b), max(abs(value_a), abs(value_b))
    with mp.workdps(FINE):
        value_a, value_b = _evaluate(a, point), _evaluate(b, point)
        if value_a is None or value_b is None:
            return None
        fine = abs(value_a - value_b)
        limit = max(coarse * mp.mpf(10) ** -40, size * mp.mpf(10) ** (10 - FINE))
        return fine <= limit, bool(real)


def letters(expression: Expression) -> frozenset[str]:
    """The names of the letters that need a value."""
    if isinstance(expression, Symbol):
        return frozenset() if expression.name in _CONSTANTS else frozenset([expression.name])
    if isinstance(expression, Apply):
        return frozenset().union(*map(letters, expression.arguments))
    return frozenset()


def _points(names: Iterable[str]) -> list[dict[str, Any]]:
    """Values of the letters, the same for equal letters in every process; one point for none."""
    names = sorted(names)
    if not names:
        return [{}]
    points = []
    for number in range(NUM_POINTS + 2):
        point = {}
        for letter in names:
            chance = zlib.crc32(f"{letter} {number}".encode())
            if letter in _WHOLE_LETTERS:
                point[letter] = 3 + chance % 29 + 31 * number
            else:
                point[letter] = Fraction(200 + chance % 2621, 1009)
                if number >= NUM_POINTS:
                    point[letter] *= -1
        points.append(point)
    return points


def _evaluate(expression: Expression, point: dict[str, Any]) -> Any:
    """The value with the precision of the caller; None where there is none, such as at a pole."""
    mp = _mpmath()
    try:
        value = _value(expression, point)
    except (ZeroDivisionError, ValueError, mp.NoConvergence):
        return None
    return value if mp.isfinite(value) else None


def _value(expression: Expression, point: dict[str, Any]) -> Any:
    mp = _mpmath()
    if isinstance(expression, Number):
        return mp.mpf(expression.value.numerator) / expression.value.denominator
    if isinstance(expression, Symbol):
        if expression.name in _CONSTANTS:
            return _CONSTANTS[expression.name](mp)
        value = point[expression.name]
        return mp.mpf(value.numerator) / value.denominator
    arguments = [_value(argument, point) for argument in expression.arguments]
    function = _NUMERIC.get(expression.function)
    if function is not None:
        return function(mp, *arguments)
    if expression.function.startswith(
        CALL
    ):  # f(x): any function, the same wherever the letter is f
        seed = 1 + zlib.crc32(expression.function.encode()) % 1000 / mp.mpf(1000)
        return mp.cos(sum(argument * (seed + i) for i, argument in enumerate(arguments))) + seed
    raise NoValue(f"the value of {expression.function} is not known")


def _bounded(argument: Any) -> Any:
    """The argument, if a function can be evaluated there in a reasonable time."""
    mp = _mpmath()
    if argument and mp.mag(argument) > MAX_MAGNITUDE:
        raise NoValue("a value that is too large")
    return argument


def _raise(mp: Any, base: Any, exponent: Any) -> Any:
    if base and exponent and mp.mag(exponent) + mp.mag(mp.mag(base)) > 64:
        raise NoValue("a power that is too large")
    if base == 0 and mp.re(exponent) <= 0:
        raise ZeroDivisionError
    return mp.power(base, exponent)


def _root(mp: Any, base: Any, degree: Any) -> Any:
    if mp.im(base) == 0 and mp.re(base) < 0 and mp.isint(degree) and int(mp.re(degree)) % 2:
        return -mp.root(-base, int(mp.re(degree)))  # the real root
    return _raise(mp, base, 1 / degree)


def _log(mp: Any, argument: Any, base: Any = None) -> Any:
    return mp.log(argument) if base is None else mp.log(argument) / mp.log(base)


def _plain(name: str) -> Callable[..., Any]:
    return lambda mp, *arguments: getattr(mp, name)(*map(_bounded, arguments))


def _one_over(name: str) -> Callable[..., Any]:
    return lambda mp, argument: 1 / getattr(mp, name)(_bounded(argument))


def _of_inverse(name: str) -> Callable[..., Any]:
    return lambda mp, argument: getattr(mp, name)(1 / argument)


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "pi": lambda mp: +mp.pi,
    "e": lambda mp: +mp.e,
    "i": lambda mp: mp.mpc(0, 1),
    "infty": lambda mp: mp.inf,
}
_NUMERIC: dict[str, Callable[..., Any]] = {
    "+": lambda mp, *values: mp.fsum(values),
    "*": lambda mp, *values: mp.fprod(values),
    "/": lambda mp, numerator, denominator: numerator / denominator,
    "^": _raise,
    "root": _root,
    "abs": lambda mp, value: abs(value),
    "factorial": _plain("factorial"),
    "binom": _plain("binomial"),
    "floor": _plain("floor"),
    "ceil": _plain("ceil"),
    "exp": lambda mp, value: _raise(mp, mp.e, value),
    "ln": _log,
    "log": _log,
    "lg": lambda mp, value: mp.log(value) / mp.log(10),
    "sgn": _plain("sign"),
    "arg": _plain("arg"),
    "degree": lambda mp, value: value * mp.pi / 180,
    **{name: _plain(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: _plain(name) for name in ("sinh", "cosh", "tanh", "coth")},
    **{"arc" + name: _plain("a" + name) for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{"ar" + name: _plain("a" + name) for name in ("sinh", "cosh", "tanh")},
    "max": lambda mp, *values: max(values, key=mp.re),
    "min": lambda mp, *values: min(values, key=mp.re),
}


@functools.cache
def _mpmath() -> Any:
    return importlib.import_module("mpmath").mp
