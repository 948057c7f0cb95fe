"""What the mains share: flags that fail in one sentence, and config files read by name."""

import runpy
import sys
from collections.abc import Mapping
from typing import Any, Literal

from absl import app

from asyppo_jax.config import Config, ConfigError, from_config_dict


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; a setting that the config does not have is one sentence."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # ml_collections wraps its sentence in the quotes and escapes of a KeyError.
        reason = " ".join(str(error).replace("\\n", " ").replace("\\", "").split())
        sys.exit(f"error: a --config flag cannot be set: {reason}; see asyppo_jax/config.py")


def read_config_file(file: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The run that a file in configs/ describes, with `changes` {"section.field": value} to it.

    Raises:
        ConfigError: there is no such file, or it has no `get_config`.
    """
    try:
        settings = runpy.run_path(file)["get_config"]()
        settings.update_from_flattened_dict(dict(changes or {}))
        return from_config_dict(settings)
    except (OSError, KeyError) as error:
        raise ConfigError(f"{file} is no config file with a get_config function: {error}") from None


def read_step(text: str) -> int | Literal["latest", "best"]:
    """Which checkpoint --step means; raises `ConfigError` on what is none of the three."""
    if text == "latest" or text == "best":
        return text
    if not text.isdecimal():
        raise ConfigError(f"--step is {text!r}; give a step, latest or best")
    return int(text)
