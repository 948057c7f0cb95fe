"""Files that may lie in a bucket (gs://, s3://), through etils' paths.

A bucket's paths need a package that speaks its protocol: gcsfs for gs://, s3fs for s3://. Orbax's
checkpoints in gs:// need google-cloud-storage besides.
"""

import functools
import importlib
import io
import os
import tempfile
from pathlib import Path

from etils import epath

from asyppo_jax.config import ConfigError


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path names an object in a bucket: one that is written whole, never appended to."""
    return "://" in os.fspath(path)


def check_packages(path: epath.PathLike) -> None:
    """Raises `ConfigError` where a run cannot be kept in a Google bucket for lack of a package."""
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
    """A path that does not depend on the working directory."""
    # etils' own `absolute` would put a bucket's path behind the working directory.
    return epath.Path(path) if in_bucket(path) else epath.Path(path).absolute()


def local_directory(path: str) -> Path:
    """A directory as a local one, for readers that know no buckets; its folders are left out.

    What lies in a bucket is copied once, and the copy removed when the process ends. A path that
    leads nowhere stays as it is.
    """
    if in_bucket(path) and epath.Path(path).is_dir():
        return Path(_copy_of(path).name)
    return Path(path)


@functools.cache
def _copy_of(path: str) -> tempfile.TemporaryDirectory[str]:
    copy = tempfile.TemporaryDirectory(prefix="asyppo_jax_")
    for file in epath.Path(path).iterdir():
        if file.is_file():
            file.copy(epath.Path(copy.name) / file.name)
    return copy


def write_whole(path: epath.Path, content: bytes) -> None:
    """Writes a file so that a kill leaves the old content or the new one, never a part."""
    if in_bucket(path):
        path.write_bytes(content)  # an object appears when it is complete
        return
    temporary = path.parent / (path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def open_to_append(path: epath.Path) -> io.BufferedIOBase:
    """A file whose flushed bytes can be read by others, what it held before included."""
    return _Object(path) if in_bucket(path) else open(path, "ab")


class _Object(io.BytesIO):
    """Appending to an object in a bucket: each flush writes the whole of it."""

    def __init__(self, path: epath.Path) -> None:
        super().__init__()
        self._path = path
        self.write(path.read_bytes() if path.is_file() else b"")

    def flush(self) -> None:
        write_whole(self._path, self.getvalue())
