"""The tensors of a directory's safetensors files: which files count, and which dtypes are read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from asyppo_jax.models.config import ModelError

_INDEX = "model.safetensors.index.json"
_DTYPES = ("F64", "F32", "F16", "BF16")


def read_tensors(directory: Path) -> Iterator[tuple[str, Path, Callable[[], np.ndarray]]]:
    """Name, file and reader of each tensor in the weight files of a directory.

    Raises:
        ModelError: files are missing, stray or damaged, or a tensor has a dtype that is no float.
    """
    for file in weight_files(directory):
        try:
            tensors: Any = safe_open(file, framework="numpy")
            names = list(tensors.keys())
        except Exception as error:  # the Rust library raises its own kind, which it does not export
            raise _damaged(file, error) from error
        with tensors:
            for name in names:
                yield name, file, lambda n=name, t=tensors, f=file: _read(t, n, f)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model: those that its index names, or else all.

    Raises:
        ModelError: there are none; the index cannot be read or names a file that is missing; or
            there are others beside those of the index.
    """
    files = sorted(directory.glob("*.safetensors"))
    index = directory / _INDEX
    if index.is_file():
        named = _named_files(index)
        missing = sorted(name for name in named if not (directory / name).is_file())
        if missing:
            raise ModelError(
                f"{directory} has no file {missing[0]}, which {_INDEX} names; download it again"
            )
        if stray := [file.name for file in files if file.name not in named]:
            raise ModelError(
                f"{directory} has the file {stray[0]}, which {_INDEX} does not name; remove the "
                "file if it does not belong to the model, or else the index"
            )
    elif not files:
        other = sorted(p.name for s in ("*.bin", "*.pth", "*.gguf") for p in directory.glob(s))
        there = f" (but {other[0]})" if other else ""
        raise ModelError(
            f"{directory} has no .safetensors file{there}; convert the weights to safetensors first"
        )
    for file in files:
        if not file.is_file():
            what = "is a link to a file that is missing" if file.is_symlink() else "is no file"
            raise ModelError(f"{file} {what}; download the model again")
    return files


def _named_files(index: Path) -> set[str]:
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        named = set(weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{index} is damaged ({error!r:.80}); download it again, or remove it"
        ) from error
    if wrong := [name for name in named if not isinstance(name, str) or "/" in name]:
        raise ModelError(f"{index} names {wrong[0]!r}, which is no file beside it; correct it")
    return named


def _read(tensors: Any, name: str, file: Path) -> np.ndarray:
    try:
        dtype = tensors.get_slice(name).get_dtype()
        if dtype not in _DTYPES:
            raise ModelError(
                f"{file}: tensor {name} has the dtype {dtype}; only floats of 16 bits or more are "
                "supported, so take the model's bfloat16 or float32 weights"
            )
        return tensors.get_tensor(name)
    except ModelError:
        raise
    except Exception as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    return ModelError(f"{file} is truncated or not safetensors ({reason}); download it again")
