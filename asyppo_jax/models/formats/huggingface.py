"""Hugging Face directories (config.json and safetensors) in and out, without PyTorch."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from etils import epath
from flax import traverse_util
from safetensors import safe_open
from safetensors.numpy import save

from asyppo_jax.models.config import ModelConfig, ModelError, from_huggingface, to_huggingface
from asyppo_jax.models.formats.name_table import (
    Entry,
    Leaf,
    full_name,
    layer_table,
    parse_name,
    top_table,
)
from asyppo_jax.runtime.paths import local_directory
from asyppo_jax.types import Params

Head = Literal["actor", "critic"]
_SHARD_BYTES = 4 * 2**30


def resolve_directory(path: str) -> Path:
    """A local directory as it is; a hub name through the hub's cache.

    Raises:
        ModelError: neither a directory nor a repository that can be reached.
    """
    directory = local_directory(path)
    if directory.is_dir() and path:
        return directory
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
    if looks_local:
        raise ModelError(f"model directory {path!r} does not exist; give a directory or a hub name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{path!r} is no local directory, and the hub did not give it ({reason}); "
            "check the name, or download it and give the directory"
        ) from error


def load_config(path: str) -> ModelConfig:
    """The architecture of a model directory, a hub name, or a file like config.json."""
    is_file = path.endswith(".json")
    file = epath.Path(path) if is_file else resolve_directory(path) / "config.json"
    if is_file and not file.is_file():
        raise ModelError(f"architecture file {path!r} does not exist; give a config.json")
    if not file.is_file():
        raise ModelError(f"{file.parent} has no config.json; is it a Hugging Face model directory?")
    try:
        values = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ModelError(f"{file} is not JSON ({error}); download it again") from error
    return from_huggingface(values, str(file))


def first_layers(config: ModelConfig, num_layers: int | None) -> ModelConfig:
    """The same architecture with only its first `num_layers` layers (None: all)."""
    if num_layers is None:
        return config
    if not 1 <= num_layers <= config.num_layers:
        raise ModelError(
            f"num_layers is {num_layers}; the model has {config.num_layers}, choose 1 … that"
        )
    return replace(config, num_layers=num_layers)


def load_params(path: str, config: ModelConfig, head: Head) -> Params:
    """Parameters of the actor or of one critic, as float32 numpy arrays in a nested dict.

    A `config` with fewer layers than the checkpoint takes the first ones. A critic leaves the
    language-model head out, and lacks the value head's leaves where the checkpoint has none.

    Raises:
        ModelError: in words, for a tensor that is ambiguous (two names, one place), unknown,
            unexpected (not of this architecture), there twice, missing, or of the wrong shape.
    """
    directory = resolve_directory(path)
    layers, top = layer_table(config), top_table(config, head)
    depth = load_config(path).num_layers
    leaves: dict[Leaf, np.ndarray] = {}
    seen: dict[tuple[int | None, str], str] = {}
    for name, file, read in _tensors(directory):
        place = parse_name(name)
        if place is None:
            continue
        _check_unseen(place, name, file, seen)
        layer, short = place
        entry = (top if layer is None else layers).get(short)
        if entry is None:
            _check_may_be_left_out(place, name, file, config, head, read, directory)
        elif layer is None:
            leaves[entry.leaf] = _convert(read(), entry, name, file)
        elif layer < config.num_layers:
            stack = leaves.setdefault(
                entry.leaf, np.empty((config.num_layers, *entry.shape), np.float32)
            )
            stack[layer] = _convert(read(), entry, name, file)
        elif layer >= depth:
            raise ModelError(f"{file}: unexpected tensor {name}; config.json has {depth} layers")
    _check_complete(directory, config, layers, top, seen)
    return traverse_util.unflatten_dict(leaves)


def _tensors(directory: Path) -> Iterator[tuple[str, Path, Callable[[], np.ndarray]]]:
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{directory} has no .safetensors file; convert the weights first")
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a dict)
                    yield name, file, lambda n=name, t=tensors: t.get_tensor(n)
        except ModelError:
            raise
        except Exception as error:
            if type(error).__name__ != "SafetensorError":
                raise
            raise ModelError(
                f"{file} is torn or not safetensors ({error}); fetch it again"
            ) from error


def _check_unseen(place, name: str, file: Path, seen: dict) -> None:
    if place in seen:
        kind = "twice" if seen[place] == name else f"ambiguous: {seen[place]} is the same place"
        raise ModelError(f"{file}: tensor {name} is there {kind}; keep one of them")
    seen[place] = name


def _check_may_be_left_out(place, name, file, config, head, read, directory) -> None:
    """Lets pass what a critic or a tied head does not read; anything else is an error."""
    layer, short = place
    if layer is None and short == "lm_head.weight":
        if head == "critic":
            return
        # Some exports write the tied matrix under both names.
        if np.array_equal(_read_one(directory, _EMBEDDING), read()):
            return
        raise ModelError(
            f"{file}: unexpected {name}: config.json ties the head to the embedding, "
            "but the two differ; set tie_word_embeddings to false"
        )
    if short in _all_names(config):
        raise ModelError(
            f"{file}: unexpected tensor {name} in a {config.model_type} model read as {head}; "
            "check model_type in config.json"
        )
    raise ModelError(f"{file}: unknown tensor {name}; this architecture is not supported")


_EMBEDDING = (None, "embed_tokens.weight")


def _read_one(directory: Path, place: tuple[int | None, str]) -> np.ndarray:
    for name, _, read in _tensors(directory):
        if parse_name(name) == place:
            return read()
    raise ModelError(f"{directory}: tensor {full_name(*place)} is missing")


def _all_names(config: ModelConfig) -> set[str]:
    full = replace(config, qk_norm=True, attention_bias=True, tie_embeddings=False)
    return {*layer_table(full), *top_table(full, "actor"), *top_table(full, "critic")}


def _convert(tensor: np.ndarray, entry: Entry, name: str, file: Path) -> np.ndarray:
    if tensor.shape != entry.their_shape:
        raise ModelError(
            f"{file}: tensor {name} has shape {tensor.shape}, "
            f"but config.json asks for {entry.their_shape}"
        )
    # Not `ascontiguousarray`, which gives a scalar an axis.
    return np.array(entry.to_ours(tensor), np.float32, order="C")


def _check_complete(directory: Path, config: ModelConfig, layers, top, seen) -> None:
    wanted = [(None, short) for short in top if not short.startswith("score.")]
    wanted += [(i, short) for i in range(config.num_layers) for short in layers]
    missing = [full_name(*place) for place in wanted if place not in seen]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelError(f"{directory}: tensor {missing[0]} is missing{more}")


def save_params(
    directory: str | Path, config: ModelConfig, params: Params, head: Head, dtype: str = "float32"
) -> None:
    """Writes config.json and (sharded) safetensors that transformers loads.

    An actor becomes a `…ForCausalLM`, a critic a `…ForTokenClassification` with one label, the
    value. `params` are those of one network, not of the stack of critics.
    """
    out = epath.Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    leaves = {leaf: np.asarray(x) for leaf, x in traverse_util.flatten_dict(dict(params)).items()}
    tensors = {}
    for short, entry in top_table(config, head).items():
        tensors[full_name(None, short)] = entry.to_theirs(leaves[entry.leaf])
    for short, entry in layer_table(config).items():
        for layer in range(config.num_layers):
            tensors[full_name(layer, short)] = entry.to_theirs(leaves[entry.leaf][layer])
    tensors = {name: np.ascontiguousarray(x, np.dtype(dtype)) for name, x in tensors.items()}
    _write_shards(out, tensors)
    values = to_huggingface(config) | {"dtype": dtype}
    if head == "critic":
        name = values["architectures"][0].replace("CausalLM", "TokenClassification")
        values |= {"architectures": [name], "num_labels": 1, "id2label": {"0": "value"}}
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
    # As bytes: safetensors' own writer knows no buckets, and makes files that only the owner reads.
    file.write_bytes(save(tensors, metadata={"format": "pt"}))
