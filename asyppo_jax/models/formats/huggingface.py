"""Reads and writes Hugging Face directories (config.json and safetensors) without PyTorch."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from etils import epath
from flax import traverse_util
from safetensors.numpy import save

from asyppo_jax.config.ranges import check_fields
from asyppo_jax.models.config import ModelConfig, ModelError, from_huggingface, to_huggingface
from asyppo_jax.models.formats.name_table import (
    Entry,
    Leaf,
    full_name,
    layer_table,
    parse_name,
    prefix_of,
    top_table,
)
from asyppo_jax.models.formats.weight_files import read_tensors
from asyppo_jax.ops.value_heads import ValueHead
from asyppo_jax.runtime.paths import resolve_directory
from asyppo_jax.types import Params

Head = Literal["actor", "critic"]
_SHARD_BYTES = 4 * 2**30


def load_config(path: str) -> ModelConfig:
    """The architecture of a model; `path` is a directory, a hub name, or a config.json file."""
    return from_huggingface(*_read_config(path))


def load_value_head(path: str) -> ValueHead:
    """The value head of an exported critic; the linear one if config.json names none."""
    values, file = _read_config(path)
    head = values.get("value_head", {})
    known = {field.name for field in fields(ValueHead)}
    if not isinstance(head, dict) or not head.keys() <= known:
        raise ModelError(
            f"{file}: value_head is {head!r:.60}; it must have the fields {', '.join(known)}"
        )
    check_fields(value_head := ValueHead(**head), f"{file}: value_head.")
    return value_head


def load_value_anchor(path: str) -> str:
    """What an exported critic's output is added to (`config.value.anchor`)."""
    return _read_config(path)[0].get("value_anchor", "none")


def load_reference_answer(path: str) -> str:
    """What an exported critic reads before the prompt (`config.value.reference_answer`)."""
    return _read_config(path)[0].get("value_reference_answer", "")


def _read_config(path: str) -> tuple[dict[str, Any], str]:
    """The fields of a config.json, and the file's name."""
    is_file = path.endswith(".json")
    file = epath.Path(path) if is_file else resolve_directory(path) / "config.json"
    if is_file and not file.is_file():
        raise ModelError(f"architecture file {path!r} does not exist; give a config.json")
    if not file.is_file():
        is_export = (file.parent / "actor" / "config.json").is_file()
        hint = (
            f"{file.parent}/actor has one" if is_export else "give a Hugging Face model directory"
        )
        raise ModelError(f"{file.parent} has no config.json; {hint}")
    try:
        values = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise ModelError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise ModelError(f"{file} holds a {type(values).__name__}, not an object; replace it")
    return values, str(file)


def first_layers(config: ModelConfig, num_layers: int | None) -> ModelConfig:
    """The same architecture with only its first `num_layers` layers (None: all)."""
    if num_layers is None:
        return config
    if not 1 <= num_layers <= config.num_layers:
        raise ModelError(
            f"num_layers is {num_layers}, but the model has {config.num_layers} layers; "
            f"choose a number from 1 to {config.num_layers}"
        )
    return replace(config, num_layers=num_layers)


def load_params(path: str, config: ModelConfig, head: Head, bins: int = 0) -> Params:
    """Parameters of the actor or of one critic, as float32 numpy arrays in a nested dict.

    If `config` has fewer layers than the checkpoint, the first layers are loaded. For a critic the
    language-model head is skipped, and the value head's leaves are missing from the result if the
    checkpoint has no value head. `bins` is that of `name_table.top_table`.

    Raises:
        ModelError: a tensor is unknown, unexpected (not of this architecture), ambiguous (two names
            for the same parameter), duplicated, missing, or of the wrong shape.
    """
    directory = resolve_directory(path)
    layers, top = layer_table(config), top_table(config, head, bins)
    depth = load_config(path).num_layers
    leaves: dict[Leaf, np.ndarray] = {}
    seen: dict[tuple[int | None, str], str] = {}
    for name, file, read in read_tensors(directory):
        key = parse_name(name)
        if key is None:
            continue
        _check_unseen(key, name, file, seen)
        layer, short = key
        entry = (top if layer is None else layers).get(short)
        if entry is None:
            _check_may_be_ignored(key, name, file, config, head, read, directory)
        elif layer is None:
            leaves[entry.leaf] = _convert(read(), entry, name, file)
        elif layer < config.num_layers:
            array = _convert(read(), entry, name, file)  # first, because it checks the shape
            if entry.leaf not in leaves:
                leaves[entry.leaf] = np.empty((config.num_layers, *entry.shape), np.float32)
            leaves[entry.leaf][layer] = array
        elif layer >= depth:
            raise ModelError(
                f"{file}: unexpected tensor {name}, because config.json has {depth} layers; "
                "check num_hidden_layers"
            )
    _check_complete(directory, config, layers, top, seen)
    return traverse_util.unflatten_dict(leaves)


def _check_unseen(key, name: str, file: Path, seen: dict) -> None:
    if key in seen:
        problem = "duplicated" if seen[key] == name else f"ambiguous: {seen[key]} is the same one"
        raise ModelError(f"{file}: tensor {name} is {problem}; keep only one of them")
    seen[key] = name


def _check_may_be_ignored(key, name, file, config, head, read, directory) -> None:
    """Raises `ModelError` unless the tensor is a head that a critic or a tied model ignores."""
    layer, short = key
    if layer is None and short == "lm_head.weight":
        if head == "critic":
            return
        # Some exports write a tied matrix under both names.
        if np.array_equal(_read_tensor(directory, _EMBEDDING), read()):
            return
        raise ModelError(
            f"{file}: unexpected {name}: config.json ties the head to the embedding, "
            "but the two differ; set tie_word_embeddings to false"
        )
    if head == "actor" and name.startswith("score."):
        raise ModelError(
            f"{file} has a critic (tensor {name}), and an actor is needed; read it with "
            "load_critics, or give the directory of an actor"
        )
    if short in _all_names(config):
        raise ModelError(
            f"{file}: unexpected tensor {name} in a {config.model_type} model read as {head}; "
            "check model_type in config.json"
        )
    if prefix := prefix_of(name):
        raise ModelError(
            f"{file}: tensor {name} has the prefix {prefix!r}, which a wrapper of the model wrote; "
            "save the model without it (of an adapter: merge it first)"
        )
    raise ModelError(
        f"{file}: unknown tensor {name}; this architecture is not supported, choose another model"
    )


_EMBEDDING = (None, "embed_tokens.weight")


def _read_tensor(directory: Path, key: tuple[int | None, str]) -> np.ndarray:
    for name, _, read in read_tensors(directory):
        if parse_name(name) == key:
            return read()
    raise ModelError(f"{directory}: tensor {full_name(*key)} is missing; download the model again")


def has_tensor(path: str, short: str) -> bool:
    """Whether a model has a tensor outside the layers with this short name (`name_table`)."""
    return any(
        parse_name(name) == (None, short) for name, _, _ in read_tensors(resolve_directory(path))
    )


def _all_names(config: ModelConfig) -> set[str]:
    full = replace(config, qk_norm=True, attention_bias=True, tie_embeddings=False)
    return {*layer_table(full), *top_table(full, "actor"), *top_table(full, "critic")}


def _convert(tensor: np.ndarray, entry: Entry, name: str, file: Path) -> np.ndarray:
    if tensor.shape != entry.their_shape:
        raise ModelError(
            f"{file}: tensor {name} has shape {tensor.shape}, "
            f"but config.json implies {entry.their_shape}; check its sizes"
        )
    # Not `ascontiguousarray`, because it turns a scalar into an array of shape (1,).
    array = np.array(entry.to_ours(tensor), np.float32, order="C")
    # Minimum and maximum, because `isfinite` would need an array of the tensor's size.
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):
        kind = "NaN" if np.isnan(array.min()) else "infinite numbers"
        raise ModelError(f"{file}: tensor {name} has {kind}; save or download the model again")
    return array


def _check_complete(directory: Path, config: ModelConfig, layers, top, seen) -> None:
    required = [(None, short) for short in top if not short.startswith("score.")]
    required += [(i, short) for i in range(config.num_layers) for short in layers]
    missing = [full_name(*key) for key in required if key not in seen]
    if missing == ["lm_head.weight"]:
        raise ModelError(
            f"{directory}: tensor lm_head.weight is missing, and config.json does not tie the head "
            "to the embedding; set tie_word_embeddings to true if the model has no head of its own"
        )
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelError(
            f"{directory}: tensor {missing[0]} is missing{more}; download the model again"
        )


def save_params(
    directory: str | Path,
    config: ModelConfig,
    params: Params,
    head: Head,
    dtype: str = "float32",
    *,
    value_head: ValueHead | None = None,
) -> None:
    """Writes config.json and safetensors (several files if large) that transformers can load.

    An actor is written as a `…ForCausalLM`, a critic as a `…ForTokenClassification` whose only
    label is the value. `params` are the parameters of one network, not the stack of all critics. A
    `value_head` other than the linear one is recorded in config.json; a "bins" head has one label
    per bin.
    """
    out = epath.Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    leaves = {leaf: np.asarray(x) for leaf, x in traverse_util.flatten_dict(dict(params)).items()}
    tensors = {}
    bins = value_head.bins if value_head else 0
    for short, entry in top_table(config, head, bins).items():
        tensors[full_name(None, short)] = entry.to_theirs(leaves[entry.leaf])
    for short, entry in layer_table(config).items():
        for layer in range(config.num_layers):
            tensors[full_name(layer, short)] = entry.to_theirs(leaves[entry.leaf][layer])
    tensors = {name: np.ascontiguousarray(x, np.dtype(dtype)) for name, x in tensors.items()}
    _write_shards(out, tensors)
    values = to_huggingface(config) | {"dtype": dtype}
    if head == "critic":
        name = values["architectures"][0].replace("CausalLM", "TokenClassification")
        labels = {str(i): f"bin_{i}" for i in range(bins)} or {"0": "value"}
        values |= {"architectures": [name], "num_labels": len(labels), "id2label": labels}
        if value_head is not None and value_head.kind != "linear":
            values["value_head"] = asdict(value_head)
    (out / "config.json").write_text(json.dumps(values, indent=2) + "\n")


def _write_shards(out: epath.Path, tensors: dict[str, np.ndarray]) -> None:
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > _SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        _save_shard(shards[0], out / "model.safetensors")
        return
    weight_map = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        _save_shard(shard, out / file)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _save_shard(tensors: dict[str, np.ndarray], file: epath.Path) -> None:
    # Written as bytes, because safetensors' `save_file` cannot write to cloud storage, and it makes
    # files that only the owner can read.
    file.write_bytes(save(tensors, metadata={"format": "pt"}))
