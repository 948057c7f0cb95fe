"""A checksum of every file of a checkpoint, to notice damage before it is trained on.

They are in `checksums/STEP.PROCESS.json` beside `checkpoints/`. Each process hashes its share of
the files in threads while the run goes on, at about 0.5 GB/s per core. Files in a bucket are not
hashed: the bucket checks its objects itself, and to read them again costs time and money.
"""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from etils import epath

from asyppo_jax.runtime.multi_host import sum_over_hosts
from asyppo_jax.runtime.paths import in_bucket, write_whole

_THREADS = 4


class ChecksumWriter:
    """Hashes checkpoints below `directory`, such as RUN/checkpoints, after they are complete."""

    def __init__(self, directory: epath.Path) -> None:
        self._directory = directory
        self._waiting: list[int] = []
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def add(self, step: int) -> None:
        """A checkpoint of this step is being written."""
        self._waiting.append(step)

    def start(self) -> None:
        """Begins to hash what was added; call it when nothing is being written."""
        if not self._waiting:
            return
        self.finish()
        steps, self._waiting = self._waiting, []
        self._thread = threading.Thread(target=self._write, args=(steps,))
        self._thread.start()

    def _write(self, steps: list[int]) -> None:
        try:
            write_checksums(self._directory, steps)
        except OSError as error:  # the disk is full
            self._error = error

    def finish(self) -> None:
        """Returns when all that was started is written; raises `OSError` if it could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def write_checksums(directory: epath.Path, steps: list[int]) -> None:
    """Writes this process's share of the checksums, and removes those of deleted checkpoints."""
    if in_bucket(directory):
        return
    kept = directory.parent / "checksums"
    kept.mkdir(parents=True, exist_ok=True)
    for step in steps:
        if (directory / str(step)).is_dir():  # it may have been deleted since
            path = kept / f"{step}.{jax.process_index()}.json"
            sums = _hash_files(directory / str(step), _share(_files(directory / str(step))))
            write_whole(path, json.dumps(sums, indent=1).encode())
    for path in kept.glob("*.json"):
        if not (directory / path.name.split(".")[0]).is_dir():
            path.unlink(missing_ok=True)


def find_damage(directory: epath.Path, step: int) -> str:
    """The first file of a checkpoint that is not as it was written; "" if there is none.

    A checkpoint without checksums, such as one of an earlier version, counts as undamaged. Every
    process of a run calls this, checks its share, and gets a text if any of them found damage.
    """
    damage = ""
    files = sorted((directory.parent / "checksums").glob(f"{step}.*.json"))
    expected: dict[str, str] = {}
    for file in files:
        try:
            expected |= json.loads(file.read_text())
        except (ValueError, TypeError):
            damage = f"its checksums {file} cannot be read"
    names = _share(sorted(expected))
    present = [name for name in names if (directory / str(step) / name).is_file()]
    for name, found in _hash_files(directory / str(step), present).items():
        if found != expected[name]:
            damage = damage or f"its file {name} has other bytes than were written"
    for name in sorted(set(names) - set(present)):
        damage = damage or f"its file {name} is missing"
    others = int(sum_over_hosts(np.int32(bool(damage))))
    return damage or ("another process found a damaged file" if others else "")


def _files(directory: epath.Path) -> list[str]:
    paths = (path for path in Path(directory).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(directory)) for path in paths)


def _share(names: list[str]) -> list[str]:
    return names[jax.process_index() :: jax.process_count()]


def _hash_files(directory: epath.Path, names: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = pool.map(lambda name: _hash(directory / name), names)
        return dict(zip(names, hashes, strict=True))


def _hash(path: epath.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
