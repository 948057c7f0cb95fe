"""What a user can mend."""


class UserError(Exception):
    """The base of every error whose message is one sentence: what is wrong, where, and the mend.

    The mains of experiments/ print it and exit with 1; any other exception is a defect of ours and
    keeps its traceback.
    """


class ConfigError(UserError, ValueError):
    """A setting that cannot work; the message names the field and the mend."""
