"""Files on local disks or in buckets (gs://, s3://), through the paths of etils.

A bucket needs a package for its protocol: gcsfs for gs://, s3fs for s3://. Orbax checkpoints in
gs:// also need google-cloud-storage.
"""

import errno
import functools
import importlib
import io
import os
import tempfile
from pathlib import Path

from etils import epath

from asyppo_jax.config import ConfigError
from asyppo_jax.config.errors import ModelError

# The errors of a full disk, quota or file system. EFBIG: a limit on the size of files.
DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO)


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is in a bucket, where objects are replaced and cannot be appended to."""
    return "://" in os.fspath(path)


def check_packages(path: epath.PathLike) -> None:
    """Raises `ConfigError` if `path` is in a Google bucket and a package for it is missing."""
    if not os.fspath(path).startswith("gs://"):
        return
    for module, package in (("gcsfs", "gcsfs"), ("google.cloud.storage", "google-cloud-storage")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"{path} needs the package {package} ({error}); run `pip install {package}`"
            ) from error


def absolute(path: epath.PathLike) -> epath.Path:
    """The absolute path; a bucket path is returned unchanged."""
    # `absolute` of etils would prepend the working directory to a bucket path.
    return epath.Path(path) if in_bucket(path) else epath.Path(path).absolute()


def checkpoint_directory(workdir: epath.PathLike) -> epath.Path:
    """The directory of a run's checkpoints, which has a folder for each saved step."""
    return absolute(workdir) / "checkpoints"


def state_directory(workdir: epath.PathLike, step: int) -> epath.Path:
    """The saved `TrainState` of a step."""
    return checkpoint_directory(workdir) / str(step) / "state"


def local_directory(path: str) -> Path:
    """A local copy of a directory in a bucket, for readers without bucket support.

    The files of the directory, but not its subdirectories, are copied once; the copy is removed
    when the process ends. A local path, or one that does not exist, is returned unchanged.
    """
    if in_bucket(path) and epath.Path(path).is_dir():
        return Path(_copy_of(path).name)
    return Path(path)


def resolve_directory(path: str) -> Path:
    """The local directory of a model; a model given by its hub name is downloaded to the hub cache.

    Raises:
        ModelError: `path` is not a directory, and the hub has no such repository or is offline.
    """
    directory = local_directory(path)
    if directory.is_dir() and path:
        return directory
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
    if looks_local:
        raise ModelError(f"model directory {path!r} does not exist; give a directory or a hub name")
    return _download(path)


@functools.cache
def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    # A ValueError of a name that the hub does not allow.
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name!r} is not a local directory, and downloading it from the hub failed "
            f"({reason}); check the name, or download it yourself and give the directory"
        ) from error


@functools.cache
def _copy_of(path: str) -> tempfile.TemporaryDirectory[str]:
    copy = tempfile.TemporaryDirectory(prefix="asyppo_jax_")
    for file in epath.Path(path).iterdir():
        if file.is_file():
            file.copy(epath.Path(copy.name) / file.name)
    return copy


def write_whole(path: epath.Path, content: bytes) -> None:
    """Writes a file atomically: after a kill it has either the old or the new content."""
    if in_bucket(path):
        path.write_bytes(content)  # a bucket shows an object only when it is complete
        return
    temporary = path.parent / (path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def open_to_append(path: epath.Path) -> io.BufferedIOBase:
    """An open file that appends to `path`; flushed bytes can be read by other processes."""
    return _Object(path) if in_bucket(path) else open(path, "ab")


class _Object(io.BytesIO):
    """Appends to an object in a bucket; each flush writes the full object again."""

    def __init__(self, path: epath.Path) -> None:
        super().__init__()
        self._path = path
        self.write(path.read_bytes() if path.is_file() else b"")

    def flush(self) -> None:
        write_whole(self._path, self.getvalue())
