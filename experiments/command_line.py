"""What the mains share: flags that fail in one sentence, and config files read by name."""

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
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
        sys.exit(f"error: a --config flag cannot be set: {reason}; see config/settings.py")


def read_config(settings: Any) -> Config:
    """The run that the value of --config describes.

    Raises:
        ConfigError: it is missing, cannot be loaded, or describes no run.
    """
    if settings is None:
        raise ConfigError("--config=configs/NAME.py is missing")
    try:
        return from_config_dict(settings.to_dict())
    except OSError as error:  # the flag's value raises it at its first use
        reason = " ".join(str(error).split())
        raise ConfigError(f"the file of --config cannot be loaded: {reason}") from error


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


def use_compile_cache(directory: str | None) -> None:
    """Keeps compiled programs in a directory, so that a second start need not compile them again.

    None: $JAX_COMPILATION_CACHE_DIR, or ~/.cache/asyppo_jax where that is not set. "": nowhere.
    A bucket's directory serves all hosts.
    """
    import jax  # late, as in the mains: a wrong setting is told before the imports

    if directory is None:
        default = Path.home() / ".cache" / "asyppo_jax"
        directory = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    jax.config.update("jax_compilation_cache_dir", directory or None)
    # Below jax's default of a second: a run compiles dozens of small programs too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
