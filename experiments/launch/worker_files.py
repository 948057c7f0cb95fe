"""What a run reads, seen from the launcher's machine: only what the workers have too is accepted.

The workers have buckets, the hub, the installed packages and their copy of this repository.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asyppo_jax.algorithm.policy_losses import LOSSES
from asyppo_jax.config import Config, ConfigError

# In no commit and in no image: see .gitignore and Dockerfile.dockerignore.
_NEVER_SENT = (".git", ".venv", ".cache", "runs")


@contextmanager
def environment_of_workers(env_file: str | None) -> Iterator[None]:
    """`os.environ` without this machine's variables ASYPPO_*, and with those of the file."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("ASYPPO_")]:
        del os.environ[name]
    os.environ.update(_variables(env_file) if env_file else {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _variables(env_file: str) -> dict[str, str]:
    variables = {}
    for number, line in enumerate(Path(env_file).read_text().splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.strip().partition("=")
        try:
            (value,) = shlex.split(value) or [""]
        except ValueError:
            equals = ""
        if not (equals and name.isidentifier()):
            raise ConfigError(f"{env_file}, line {number}: give NAME=value")
        variables[name] = value
    return variables


def check_reachable(config: Config, *, committed: bool) -> None:
    """Raises `ConfigError` if a path or a module of the config is on this machine alone.

    `committed`: the workers have the last commit. Otherwise they have an image of the repository.
    """
    for setting, path in _paths(config):
        if "://" not in path:
            _check_in_repository(setting, path, committed)
    for setting, name in _functions(config):
        _check_module(setting, name.partition(":")[0], committed)


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    for name in ("train_data", "eval_data"):
        data = getattr(config, name)
        if data.source in ("jsonl", "parquet"):
            yield f"config.{name}.path", data.path
    for name in ("actor", "critic"):
        network = getattr(config, name)
        if network.path and not _is_hub_name(network.path):
            yield f"config.{name}.path", network.path
        if network.architecture:
            yield f"config.{name}.architecture", network.architecture
    if config.value.warm_start:
        yield "config.value.warm_start", config.value.warm_start


def _is_hub_name(path: str) -> bool:
    """As `runtime.paths.resolve_directory` decides."""
    is_path = path.startswith((".", "/", "~")) or path.count("/") != 1
    return not is_path and not Path(path).exists()


def _functions(config: Config) -> Iterator[tuple[str, str]]:
    for name in config.reward.function.split(","):
        if ":" in name:  # the others are built in
            yield "config.reward.function", name.strip()
    if config.algorithm.loss not in LOSSES:
        yield "config.algorithm.loss", config.algorithm.loss
    for name in ("train_data", "eval_data"):
        data = getattr(config, name)
        if data.source == "function":
            yield f"config.{name}.path", data.path


def _check_in_repository(setting: str, path: str, committed: bool) -> None:
    file, here = Path(path).absolute(), Path.cwd()
    exists = file.exists()
    if exists and file.is_relative_to(here) and _is_sent(file.relative_to(here), committed):
        return
    fix = "copy it to a bucket and give gs://BUCKET/..."
    if "_data" in setting:
        fix += "; the paper's configs take gs://BUCKET/data from ASYPPO_DATA in the --env_file"
    where = "is on this machine and not on the workers" if exists else "does not exist here"
    raise ConfigError(f"{setting} is {path!r}, which {where}; {fix}")


def _is_sent(path: Path, committed: bool) -> bool:
    """Whether the workers' copy of this repository has a file or a directory of it."""
    if path.parts[:1] and path.parts[0] in _NEVER_SENT:
        return False
    return not (committed and differs_from_commit(str(path)))


def differs_from_commit(path: str) -> bool:
    """Whether git knows that a file or a directory is not as in the last commit.

    Without git, or outside a git checkout, this cannot be known.
    """
    if shutil.which("git") is None:
        return False
    command = ["git", "status", "--porcelain", "--ignored", "--", path]
    status = subprocess.run(command, capture_output=True, text=True)
    return status.returncode == 0 and bool(status.stdout)


def _check_module(setting: str, module: str, committed: bool) -> None:
    wrong = f"{setting} names the module {module!r}, which"
    fix = "put it at the top of this repository" + (
        ", commit it and run setup again" if committed else " and build the image again"
    )
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(f"{wrong} is not found here; {fix}")
    places = [spec.origin] if spec.has_location else [*(spec.submodule_search_locations or ())]
    here = Path.cwd()
    for place in filter(None, places):
        file = Path(place)
        if file.is_relative_to(here) and not _is_installed(file):
            if not _is_sent(file.relative_to(here), committed):
                raise ConfigError(f"{wrong} differs from the last commit; {fix}")
        elif not _is_installed(file):
            raise ConfigError(f"{wrong} is in {file.parent}, which the workers do not have; {fix}")


def _is_installed(file: Path) -> bool:
    """Whether a module belongs to Python or to an installed package, not to a user's directory."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return any(file.is_relative_to(sysconfig.get_path(name)) for name in names)
