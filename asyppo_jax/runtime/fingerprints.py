"""Hashes that notice that a model or a data set changed, at little cost for large files."""

import hashlib
from collections.abc import Collection, Iterator

from etils import epath

from asyppo_jax.runtime.paths import in_bucket

MODEL_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".safetensors")
_START = 2**20  # bytes; the header of a safetensors file is shorter, mostly
_BLOCK = 2**16
_BLOCKS = 64


def fingerprint(path: epath.PathLike) -> str:
    """A hash of a file's size and content, of a file above 5 MiB of samples of its content.

    Samples are the first MiB, 63 blocks of 64 KiB at equal distances, and the last block: training
    changes nearly every weight, so it changes some of them. In a bucket, where each read takes a
    request, only the size is hashed.
    """
    file = epath.Path(path)
    size = file.stat().length
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    if in_bucket(file):
        return digest.hexdigest()
    with open(file, "rb") as content:
        if size <= _START + _BLOCKS * _BLOCK:
            digest.update(content.read())
        else:
            digest.update(content.read(_START))
            last = size - _BLOCK
            for start in (last * i // _BLOCKS for i in range(1, _BLOCKS + 1)):
                content.seek(start)
                digest.update(content.read(_BLOCK))
    return digest.hexdigest()


def fingerprints(directory: epath.PathLike, suffixes: Collection[str] = ()) -> dict[str, str]:
    """The `fingerprint` of each file below a directory by its relative path.

    With `suffixes`, only of those files that end so and are directly in the directory.
    """
    top = epath.Path(directory)
    if suffixes:
        files = [path for path in top.iterdir() if path.suffix in suffixes and path.is_file()]
    else:
        files = _files_below(top)
    names = sorted((str(path.relative_to(top)), path) for path in files)
    return {name: fingerprint(path) for name, path in names}


def _files_below(directory: epath.Path) -> Iterator[epath.Path]:
    for path in directory.iterdir():
        if path.is_dir():
            yield from _files_below(path)
        elif path.is_file():  # a link may lead nowhere
            yield path


def combined(hashes: dict[str, str]) -> str:
    """One hash of the names and hashes of several files."""
    text = "".join(f"{name}\0{value}\0" for name, value in sorted(hashes.items()))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
