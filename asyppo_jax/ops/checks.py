"""Checks of numbers that the pure functions take, such as fractions and clip ranges.

Python numbers are checked. Arrays and traced values are not, because they are not known under jit.
"""

from typing import Any


def check_fraction(name: str, value: Any, *, below_one: bool = False) -> None:
    """Raises `ValueError` unless 0 ≤ value ≤ 1, or 0 ≤ value < 1 with `below_one`."""
    if _is_known(value) and not (0 <= value < 1 or (value == 1 and not below_one)):
        raise ValueError(f"{name} is {value}; it must be in [0, 1{')' if below_one else ']'}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises `ValueError` unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")


def check_not_negative(name: str, value: Any) -> None:
    """Raises `ValueError` unless value ≥ 0."""
    if _is_known(value) and not value >= 0:  # true for NaN
        raise ValueError(f"{name} is {value}; it must be 0 or more")


def check_positive(name: str, value: Any) -> None:
    """Raises `ValueError` unless value > 0."""
    if _is_known(value) and not value > 0:
        raise ValueError(f"{name} is {value}; it must be above 0")


def _is_known(value: Any) -> bool:
    return isinstance(value, int | float)
