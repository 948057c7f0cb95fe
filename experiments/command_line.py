"""Flags and config files for the command lines, with one-line errors."""

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from absl import app

from asyppo_jax.config import Config, ConfigError, from_config_dict


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; exits with a one-line error if a --config flag cannot be set."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # ml_collections raises KeyErrors, whose text has quotes and escaped newlines.
        reason = " ".join(str(error).replace("\\n", " ").replace("\\", "").split())
        sys.exit(f"error: a --config flag cannot be set: {reason}; see config/settings.py")


def read_config(settings: Any) -> Config:
    """The config that the value of the flag --config describes.

    Raises:
        ConfigError: the flag is missing, its file cannot be loaded, or the config is invalid.
    """
    if settings is None:
        raise ConfigError("--config=configs/NAME.py is missing; name a config file")
    try:
        return from_config_dict(settings.to_dict())
    except OSError as error:  # raised only when the flag's value is first used
        reason = " ".join(str(error).split())
        raise ConfigError(f"the file of --config cannot be loaded: {reason}") from error


def read_config_file(file: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The config in a file, with `changes` {"section.field": value} applied to it.

    Raises:
        ConfigError: the file does not exist, or it has no `get_config`.
    """
    try:
        settings = runpy.run_path(file)["get_config"]()
        settings.update_from_flattened_dict(dict(changes or {}))
        return from_config_dict(settings)
    except (OSError, KeyError) as error:
        raise ConfigError(
            f"{file} is not a config file with a get_config function: {error}"
        ) from None


def read_step(text: str) -> int | Literal["latest", "best"]:
    """The checkpoint that --step names: "latest", "best" or a number; else raises `ConfigError`."""
    if text == "latest" or text == "best":
        return text
    if not text.isdecimal():
        raise ConfigError(f"--step is {text!r}; give a step number, latest or best")
    return int(text)


def use_compile_cache(directory: str | None) -> None:
    """Turns on JAX's compilation cache in a directory, so that a later run starts faster.

    None: $JAX_COMPILATION_CACHE_DIR, or ~/.cache/asyppo_jax if that is not set. "": no cache.
    A directory in a bucket can be shared by all hosts.
    """
    import jax  # imported late, so that a wrong setting is reported before the slow imports

    if directory is None:
        default = Path.home() / ".cache" / "asyppo_jax"
        directory = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    jax.config.update("jax_compilation_cache_dir", directory or None)
    # Less than jax's default of one second, because a run compiles dozens of small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
