"""Files of records, row by row; what cannot be read is named with its file and row."""

import importlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from etils import epath

from asyppo_jax.config import UserError
from asyppo_jax.config.errors import did_you_mean
from asyppo_jax.runtime.paths import check_packages

Rows = Iterator[tuple[str, Any]]  # (location for error messages, fields)

SECTIONS = "config.train_data or config.eval_data"


class DataError(UserError, ValueError):
    """Data that cannot be used; the message says where and how to fix it."""


def existing_file(path: str) -> epath.Path:
    """The path of a data file.

    Raises:
        DataError: it is none.
        ConfigError: a package for its bucket is missing.
    """
    if path.startswith(("http://", "https://")):
        raise DataError(f"{path} is an address, not a file; download it and give the file's path")
    check_packages(path)
    file = epath.Path(path)
    try:
        is_file, is_directory = file.is_file(), file.is_dir()
    except (ImportError, OSError, ValueError) as error:  # of a bucket
        raise DataError(f"data file {path} cannot be found ({error}); check the path") from error
    if not is_file:
        state = "is a directory" if is_directory else "does not exist"
        fix = f"set path in {SECTIONS} to a file"
        raise DataError(f"data file {path} {state}; {nearest_file(path, fix)}")
    return file


def nearest_file(path: str, otherwise: str) -> str:
    """`did_you_mean` for the names of the files in the folder of a path that does not exist."""
    file = epath.Path(path)
    entries = file.parent.iterdir() if file.parent.is_dir() else ()
    return did_you_mean(file.name, [p.name for p in entries if p.is_file()], otherwise)


def jsonl_rows(path: epath.Path) -> Rows:
    """The rows of a file with one JSON value per line."""
    with path.open("rb") as lines:
        before = 0
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            # A JSONDecodeError or a UnicodeDecodeError; brackets in brackets, thousands deep.
            except (ValueError, RecursionError) as error:
                kind = "" if before else _kind(line)
                raise DataError(
                    f"{path} {kind}"
                    if kind
                    else f"{where}: not JSON ({error}); fix or remove that line"
                ) from error
            if isinstance(row, list) and not before:
                raise DataError(f"{path} {_LIST}")
            before += 1
            yield where, row


_LIST = "is one JSON list; write its objects one per line, without commas between them"
# The first bytes of a file -> what it is, and what to do.
_KINDS = {
    b"PAR1": f'is a parquet file; set source to "parquet" in {SECTIONS}',
    b"\x1f\x8b": "is compressed by gzip; decompress it",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"version https://git-lfs": "is a pointer of Git LFS, not the data; run `git lfs pull`",
    b"<": "is a web page or XML; download the file itself",
    b"[": _LIST,
    b"{": "is one JSON document over several lines; write one object per line",
}


def _kind(first_line: bytes) -> str:
    """What a file is that is not JSON by lines, from its first line; "" if that says nothing."""
    start = first_line.removeprefix(b"\xef\xbb\xbf").strip()
    if start.startswith(b"{") and start != b"{":  # a damaged object
        return ""
    for beginning, kind in _KINDS.items():
        if start.startswith(beginning):
            return kind
    is_text = start.isascii() and b"," in start
    return "looks like CSV; convert it to one JSON object per line" if is_text else ""


def parquet_rows(path: epath.Path) -> Rows:
    """The rows of a parquet file as dicts."""
    import_package("pyarrow", "parquet data", "pip install -e '.[parquet]'")
    import pyarrow
    import pyarrow.parquet

    number = 0
    with path.open("rb") as source:
        try:
            file = pyarrow.parquet.ParquetFile(source)
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            after = f" after row {number}" if number else ""
            state = "cannot be read" if number else "is not a parquet file"
            raise DataError(f"{path} {state}{after} ({reason}); write it again") from error


def import_package(module: str, user: str, command: str) -> ModuleType:
    """An optional package; raises `DataError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{user} needs the package {module} ({error}); run `{command}`") from error
