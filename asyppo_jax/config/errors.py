"""Errors that a user can fix."""


class UserError(Exception):
    """The base of every error whose message is one sentence: what is wrong, where, how to fix it.

    The mains of experiments/ print it and exit with 1; any other exception is a defect of ours and
    keeps its traceback.
    """


class ConfigError(UserError, ValueError):
    """A setting that cannot work; the message names the field and how to fix it."""
