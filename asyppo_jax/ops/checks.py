"""Checks of what the pure functions take: shapes of arrays, fractions, clip ranges.

Shapes are known under jit. Of numbers only Python's are checked; arrays and traced values are not,
because their values are not known under jit.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import AbstractArray, Bool, Float, jaxtyped

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


def check_arrays(function: Callable[_Params, _Result]) -> Callable[_Params, _Result]:
    """A decorator: arguments get the kind of their annotation, and their shapes must fit it.

    Lists and numpy arrays become JAX arrays. Numbers become truth values where a `Bool` is
    annotated, and whole numbers become float32 where a `Float` is. Axes of one name must have one
    length, as the annotations of jaxtyping say; otherwise the function raises `ValueError`. An
    array that may be None is checked where it is given.
    """
    signature = inspect.signature(function)
    hints = {name: _without_none(hint) for name, hint in typing.get_type_hints(function).items()}
    arrays = {name: hint for name, hint in hints.items() if name != "return" and _is_array(hint)}

    @functools.wraps(function)
    def checked(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__name__}{_names(signature)}: {error}") from None
        given = {k: hint for k, hint in arrays.items() if bound.arguments.get(k) is not None}
        for name, hint in given.items():
            bound.arguments[name] = _as_kind(bound.arguments[name], hint)
        values = {name: bound.arguments[name] for name in given}
        with jaxtyped("context"):  # where axes of one name have one length
            fit = all(isinstance(values[name], hint) for name, hint in given.items())
        if not fit:
            raise ValueError(_misfit(function.__name__, values, given))
        return function(*bound.args, **bound.kwargs)

    return checked


def _names(signature: inspect.Signature) -> str:
    """(a, b, *, c): a signature without types."""
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(parameters))


def _without_none(hint: Any) -> Any:
    """T for the annotation `T | None`; every other annotation is unchanged."""
    if not isinstance(hint, types.UnionType):
        return hint
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    return kinds[0] if len(kinds) == 1 else hint


def _is_array(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)


def _as_kind(value: Any, hint: Any) -> jax.Array:
    array = value if isinstance(value, jax.Array) else jnp.asarray(value)
    if hint.dtype is Bool and array.dtype != bool:
        return array != 0
    if hint.dtype is Float and not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.float32)
    return array


def _misfit(function: str, values: dict[str, jax.Array], hints: dict[str, Any]) -> str:
    """What was given beside what the function takes."""
    takes = ", ".join(f"{name} [{', '.join(hint.dim_str.split())}]" for name, hint in hints.items())
    shapes = ", ".join(str(list(value.shape)) for value in values.values())
    ranks = {name: len(hint.dim_str.split()) for name, hint in hints.items()}
    fixed = not any("*" in hint.dim_str or "..." in hint.dim_str for hint in hints.values())
    batched = fixed and all(value.ndim == ranks[name] + 1 for name, value in values.items())
    # A lambda, because jax.vmap would map keyword arguments such as gamma, too.
    call = f"lambda {', '.join(values)}: {function}({', '.join(values)}, ...)"
    advice = f"; for a batch, use jax.vmap({call})" if batched else ""
    return f"{function} takes {takes}, and the shapes given are {shapes}{advice}"


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
