"""Flags and config files for the command lines, with one-line errors."""

import difflib
import os
import re
import runpy
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from absl import flags

from asyppo_jax.config import Config, ConfigError, RewardConfig, from_config_dict
from asyppo_jax.config.functions import names_a_module
from asyppo_jax.config.reading import setting_names, unknown_setting
from experiments.main import config_names, config_path, with_config_paths

# The exit status of a program that Ctrl-C ended, as in a shell: 128 + SIGINT.
INTERRUPTED = 130


def stop(text: str, status: int = INTERRUPTED) -> NoReturn:
    """Ends a command after a signal at once, with a sentence.

    Python's own exit would wait for the compiler, and free memory that a program on the device may
    still use, which crashes.
    """
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    os._exit(status)


def parse_flags(argv: list[str]) -> list[str]:
    """The arguments that are not flags; exits with a one-line error if a flag is wrong.

    Every command calls it, so it also turns the missing package of a bucket into one line.
    """
    sys.excepthook = _print_exception
    sys.unraisablehook = _without_closed_loops
    try:
        return read_flags(argv, flags.FLAGS)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # `--help | head`
        sys.exit(1)


def _print_exception(kind: type, error: BaseException, trace: Any) -> None:
    """`sys.excepthook`: one line for a full disk and for gs:// without its package."""
    from asyppo_jax.runtime.paths import DISK_FULL  # late: with it, each command starts slower

    if isinstance(error, ImportError) and "install gcsfs" in str(error):
        print(
            f"error: a gs:// path cannot be read ({error}); run "
            "`pip install gcsfs google-cloud-storage`",
            file=sys.stderr,
        )
    elif isinstance(error, OSError) and error.errno in DISK_FULL:
        file = error.filename or "a file"
        print(
            f"error: {file} cannot be written: {error.strerror}; make room, or write to another "
            "directory, and run the same command",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


def _without_closed_loops(unraisable: Any) -> None:
    """`sys.unraisablehook`: leaves out what follows a write of a checkpoint that failed.

    Threads of TensorStore then call an event loop of Orbax that has ended, once for each array. The
    failure itself is raised in the main thread.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def read_flags(argv: list[str], values: flags.FlagValues, program: str = "") -> list[str]:
    """The arguments that are not flags, after the flags were parsed into `values`.

    `program` is whose `--help` a message names, if it is not the running program.

    Raises:
        ConfigError: a flag is unknown or has a wrong value, or the config file cannot be read.
    """
    argv = with_config_paths(argv)
    for flag in argv[1:]:
        name, _, value = flag.lstrip("-").partition("=")
        if name.startswith("config.") and name.removeprefix("config.") not in setting_names():
            raise ConfigError(unknown_setting(name.removeprefix("config.")))
        if name == "config" and value and name in values:
            _check_is_file(value.partition(":")[0])  # FILE or FILE:ARGUMENT
    try:
        return values(argv)
    except flags.Error as error:
        help_of = f"{program} --help".lstrip()
        raise ConfigError(f"{_flag_reason(error)}; {help_of} lists the flags") from None
    except Exception as error:  # whatever the code of a config file raises
        raise ConfigError(f"--config cannot be read: {_reason(error)}") from error


def refuse_words(argv: list[str]) -> None:
    """Raises `ConfigError` if the arguments that are not flags have one after the program."""
    if len(argv) > 1:
        raise ConfigError(f"{argv[1]!r} is not a flag")


# Python's and absl's messages for a value of a wrong type -> what the flag takes.
_KINDS = {
    "invalid literal for int": "a whole number",
    "could not convert string to float": "a number",
    r"\('Non-boolean argument": "true or false",
}


def _flag_reason(error: flags.Error) -> str:
    """What absl found wrong, in one line; flags that must be given are listed."""
    if "Error whilst parsing config file:" in str(error):  # with the whole traceback
        lines = re.findall(r'File "(.+)", line (\d+), in get_config', str(error))
        at = f"{lines[-1][0]}, line {lines[-1][1]}: " if lines else ""
        return f"--config cannot be read: {at}{str(error).strip().splitlines()[-1]}"
    text = " ".join(str(error).split()).rstrip(".")
    for message, kind in _KINDS.items():
        if wrong := re.match(rf"flag (--[\w.]+)=(.*): {message}", text):
            return f"{wrong[1]} takes {kind}, not {wrong[2]!r}"
    missing = re.findall(r"Flag (--[\w-]+) must have a value other than None", text)
    if missing:
        return f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing"
    return text


def _check_is_file(file: str) -> None:
    if Path(file).is_file():
        return
    nearest = difflib.get_close_matches(Path(file).stem, config_names(), n=1)
    hint = (
        f"did you mean --config={nearest[0]}?"
        if nearest
        else "`asyppo configs` lists those that exist"
    )
    raise ConfigError(f"the file {file} of --config does not exist; {hint}")


def _reason(error: Exception) -> str:
    """What ml_collections found wrong, in one line, after the line of the config file."""
    # KeyErrors and AttributeErrors of ml_collections have quotes and escaped newlines.
    text = " ".join(str(error).replace("\\n", " ").replace("\\", "").split())
    text = text or type(error).__name__
    if missing := re.match(r"""["']*(?:Key ")?([\w.]+)["']""", text):
        text = unknown_setting(missing.group(1))
    if ours := re.fullmatch(r"""(["'])(config\..*)\1""", text):
        text = ours[2]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.name == "get_config"]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {text}" if frames else text


def read_config(settings: Any) -> Config:
    """The config that the value of the flag --config describes.

    Raises:
        ConfigError: the flag is missing, its file cannot be loaded, or the config is invalid.
    """
    if settings is None:
        raise ConfigError("--config=configs/NAME.py is missing; name a config file")
    try:
        return from_config_dict(_checked(settings).to_dict())
    except OSError as error:  # raised only when the flag's value is first used
        reason = " ".join(str(error).split())
        raise ConfigError(f"the file of --config cannot be loaded: {reason}") from error


def read_config_file(file: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The config in a file, with `changes` {"section.field": value} applied to it.

    Raises:
        ConfigError: the file does not exist, has no `get_config`, or sets what is not a setting.
    """
    file = config_path(file)
    try:
        get_config = runpy.run_path(file)["get_config"]
    except Exception as error:  # whatever its code raises
        raise ConfigError(
            f"{file} is not a config file with a get_config function: {_reason(error)}"
        ) from None
    try:
        settings = get_config()
    except Exception as error:
        raise ConfigError(f"{file} cannot be read: {_reason(error)}") from error
    try:
        _checked(settings).update_from_flattened_dict(dict(changes or {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"a config file cannot be read: {_reason(error)}") from error
    return from_config_dict(settings)


def _checked(settings: Any) -> Any:
    """What `get_config` returned; raises `ConfigError` if those are no settings."""
    # Any other test would hide the error of a missing file, which ml_collections raises here.
    if not hasattr(settings, "to_dict"):
        raise ConfigError(
            f"get_config of the config file returns a {type(settings).__name__}; return "
            "default_config() after changing its settings"
        )
    return settings


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


def reward_of_run(reward: RewardConfig, grader: str | None) -> RewardConfig:
    """What grades the answers of a run: its own reward, or the functions that --grader names.

    As many functions as the run has keep the run's weights. A line says which weights are used.

    Raises:
        ConfigError: there is no --grader, and the run's functions cannot be imported.
    """
    if grader is None:
        if names_a_module(reward.function):
            return reward
        raise ConfigError(
            f"the run's reward {reward.function} was given in Python and is not in a module: put "
            "the function into a module that does not train when it is imported, and name it with "
            "--grader"
        )
    count = grader.count(",") + 1
    is_same_number = len(reward.weights) == count
    if count > 1:
        which = f"the run's weights {reward.weights}" if is_same_number else "equal weights"
        print(f"--grader={grader}: {which}", file=sys.stderr)
    return replace(reward, function=grader, weights=reward.weights if is_same_number else ())
