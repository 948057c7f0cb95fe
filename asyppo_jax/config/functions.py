"""Functions of the user's that a setting names: "module:function"."""

import importlib
from collections.abc import Callable
from typing import Any

from asyppo_jax.config.errors import ConfigError


def named_function(name: str, setting: str, builtin: str = "") -> Callable[..., Any]:
    """The function "module:function" that the setting names.

    `builtin` lists the other values of the setting for the error message.

    Raises:
        ConfigError: the name has another form, or there is no such module or function.
    """
    wrong = f"{setting} is {name!r}"
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        raise ConfigError(f'{wrong}; give {builtin and f"{builtin} or "}"module:function"')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of the user's raises
        reason = " ".join(str(error).split())
        if not isinstance(error, ImportError):
            reason = f"{type(error).__name__}: {reason}"
        raise ConfigError(
            f"{wrong}, but its module cannot be imported ({reason}); "
            "correct the name, or add the module's directory to PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(
            f"{wrong}, but module {module_name!r} has no function {function_name!r}; "
            "correct the name or define it"
        )
    return function


def function_name(function: Callable[..., Any]) -> str:
    """How a run's settings record a function that was given as an object."""
    kind = getattr(function, "func", function)  # of a functools.partial
    kind = kind if hasattr(kind, "__qualname__") else type(kind)
    return f"{kind.__module__}:{kind.__qualname__}"


def names_a_module(name: str) -> bool:
    """Whether a function of this name (see `function_name`) can be imported again."""
    return "__main__:" not in name and "<" not in name
