"""Errors that a user can fix, and what the user perhaps meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The base of every error whose message is one sentence: what is wrong, where, how to fix it.

    The mains of experiments/ print it and exit with 1; any other exception is a defect of ours and
    keeps its traceback.
    """


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """A question whether the nearest of the names was meant, or `otherwise` if none is near.

    A name that begins like the given one is nearest.
    """
    names = list(names)
    longer = [n for n in names if len(name) > 1 and n.startswith(name)]
    nearest = longer or difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else otherwise


class ConfigError(UserError, ValueError):
    """A setting that cannot work; the message names the field and how to fix it."""


class ModelError(UserError, ValueError):
    """A model cannot be used; the message names the file or field and how to fix it."""
