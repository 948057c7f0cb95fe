"""The inputs of `fuzz`: a good setting, file or model, mutated, and what reads it."""

import atexit
import dataclasses
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from asyppo_jax.config import DataConfig, PromptConfig, from_config_dict, from_dict
from asyppo_jax.config.reading import setting_names
from asyppo_jax.models.actor_critic import Actor, init_actor
from asyppo_jax.models.formats.huggingface import load_config, load_params, save_params
from asyppo_jax.tasks.prompts import make_prompts
from asyppo_jax.tasks.records import load_records
from asyppo_jax.tasks.tokenizers import load_tokenizer, special_ids
from configs import tiny_test
from experiments.command_line import read_config, read_config_file, read_flags
from experiments.quickstart.make_model import MODEL as QUICKSTART
from experiments.quickstart.tokenizer import make_tokenizer, save_tokenizer
from experiments.torture.fuzz_mutations import (
    any_value,
    change_json,
    mutated_bytes,
    mutated_text,
    near_value,
)

MODEL = dataclasses.replace(
    QUICKSTART, embed_dim=8, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=8
)
Made = tuple[str, Callable[[], object]]  # how an input was made, and what reads it


def _setting(rng: random.Random, directory: Path) -> Made:
    values = json.loads(json.dumps(dataclasses.asdict(from_config_dict(tiny_test.get_config()))))
    changes = {}
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(setting_names())
        section, _, field = name.rpartition(".")
        target = values[section] if section else values
        target[field] = changes[name] = near_value(rng, target[field])
    if rng.random() < 0.1:
        values[rng.choice(list(values))] = any_value(rng)
    return repr(changes), lambda: from_dict(values)


def _flag(rng: random.Random, directory: Path) -> Made:
    argv = ["fuzz", "--config=configs/tiny_test.py"]
    name = rng.choice(setting_names())
    if rng.random() < 0.1:
        name = mutated_text(rng, name)
    argv.append(f"--config.{name}={any_value(rng)}")

    def call() -> None:
        values, before = flags.FlagValues(), sys.argv
        config_flags.DEFINE_config_file("config", None, flag_values=values)
        sys.argv = argv  # ml_collections looks for the settings there
        try:
            read_flags(argv, values)
            read_config(values.config)
        finally:
            sys.argv = before

    return argv[-1], call


def _config_file(rng: random.Random, directory: Path) -> Made:
    lines = Path(tiny_test.__file__).read_text().splitlines()
    change = f"line {(at := rng.randrange(len(lines)))}"
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines[at] = mutated_text(rng, lines[at])
        case 2:
            lines[at] += f" {rng.choice(('(', '}', '= 1', '/ 0', '.x', ', 2', ': int'))}"
        case 3:
            name = rng.choice(setting_names())
            lines.insert(-1, f"    config.{name} = {any_value(rng)!r}")
            change = lines[-2]
    file = directory / "config.py"
    file.write_text("\n".join(lines), errors="surrogatepass")
    return f"{change}: {lines[min(at, len(lines) - 1)]!r}", lambda: read_config_file(str(file))


def _data(rng: random.Random, directory: Path) -> Made:
    rows: list[Any] = [{"problem": f"{i}+1", "answer": str(i + 1)} for i in range(4)]
    row = rng.randrange(4)
    rows[row][rng.choice(("problem", "answer", "other"))] = any_value(rng)
    if rng.random() < 0.2:
        rows[row] = any_value(rng)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if rng.random() < 0.5:
        content = mutated_bytes(rng, content)
    file = directory / "data.jsonl"
    file.write_bytes(content)
    data = DataConfig(path=str(file))
    if rng.random() < 0.3:
        field = rng.choice(dataclasses.fields(DataConfig)).name
        data = dataclasses.replace(data, **{field: any_value(rng)})
    template = rng.choice(("chat", "{problem}=", "x", ""))

    def call() -> None:
        records = load_records(data)
        make_prompts(records, _tokenizer(), PromptConfig(template=template, max_length=64))

    return f"{data} {content!r}", call


@cache
def _tokenizer() -> Any:
    return make_tokenizer()


@cache
def _good_model() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="asyppo_fuzz_model_"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    save_tokenizer(directory)
    params = jax.jit(lambda: init_actor(Actor(MODEL), jax.random.key(0)))()
    save_params(directory, MODEL, jax.tree.map(jax.device_get, _unboxed(params)), "actor")
    (directory / "generation_config.json").write_text('{"eos_token_id": [1], "pad_token_id": 0}')
    return directory


def _unboxed(params: Any) -> Any:
    is_box = lambda leaf: hasattr(leaf, "unbox")  # noqa: E731
    return jax.tree.map(lambda x: x.unbox() if is_box(x) else x, params, is_leaf=is_box)


def _model(rng: random.Random, directory: Path) -> Made:
    model = directory / "model"
    shutil.copytree(_good_model(), model)
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    file = model / rng.choice((*names, "config.json", "model.safetensors"))
    if file.suffix == ".safetensors":
        change = _change_weights(rng, file)
    elif rng.random() < 0.25:
        file.write_bytes(mutated_bytes(rng, file.read_bytes()))
        change = "bytes"
    else:
        values = json.loads(file.read_text())
        change = change_json(rng, values)
        file.write_text(json.dumps(values))

    def call() -> None:
        config = load_config(str(model))
        special_ids(load_tokenizer(str(model)), str(model), (), config.vocab_size)
        load_params(str(model), config, "actor")

    return f"{file.name}: {change}", call


def _change_weights(rng: random.Random, file: Path) -> str:
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    if rng.random() < 0.4:
        part = content[: size + 200]
        file.write_bytes(mutated_bytes(rng, part) + content[len(part) :])
        return "bytes"
    header = json.loads(content[8 : 8 + size])
    name = rng.choice(list(header))
    if rng.random() < 0.3:
        header[f"module.{name}"] = header.pop(name)
        change = f"{name} has a prefix"
    elif rng.random() < 0.3 and "dtype" in header[name]:
        header[name]["dtype"] = rng.choice(("F8_E4M3", "I32", "U32", "F64", "BF16", "X"))
        change = f"{name} is {header[name]['dtype']}"
    else:
        change = change_json(rng, header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    return change


def _gguf(rng: random.Random, directory: Path) -> Made:
    from asyppo_jax.models.formats.gguf import convert_gguf

    file, change = directory / "model.gguf", "bytes"
    if rng.random() < 0.5:
        size = len(content := _good_gguf(None))
        cut = min(size, 2500)  # most of it is fields
        file.write_bytes(mutated_bytes(rng, content[:cut]) + content[cut:])
    else:
        name = rng.choice([*_GGUF_FIELDS])
        value = near_value(rng, _GGUF_FIELDS[name]) if rng.random() < 0.9 else None
        if not _fits_gguf(value):
            value = None
        change = f"{name} = {value!r}"
        file.write_bytes(_good_gguf(name, value))
    return change, lambda: convert_gguf(file, directory / "out")


_GGUF_FIELDS: dict[str, Any] = {
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.block_count": 1,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.key_length": 8,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 1e4,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "<eos>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 3,
    "tokenizer.ggml.bos_token_id": 3,
    "tokenizer.chat_template": "{{ messages }}",
    "split.count": 1,
}
_GGUF_SHAPES = {
    "token_embd.weight": (4, 32),
    "output_norm.weight": (32,),
    "blk.0.attn_norm.weight": (32,),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (16, 32),
    "blk.0.attn_v.weight": (16, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_norm.weight": (32,),
    "blk.0.ffn_gate.weight": (32, 32),
    "blk.0.ffn_up.weight": (32, 32),
    "blk.0.ffn_down.weight": (32, 32),
}


def _fits_gguf(value: Any) -> bool:
    """Whether the writer of GGUF files can write the value of a field."""
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], list | None)
    if isinstance(value, int):
        return 0 <= value < 2**32
    return isinstance(value, float) or (isinstance(value, str) and value.isprintable())


def _good_gguf(name: str | None, value: Any = None) -> bytes:
    """A tiny GGUF file; the field `name` has another value, or is left out where that is None."""
    import gguf

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for key, of_good in _GGUF_FIELDS.items():
            match value if key == name else of_good:
                case bool(flag):
                    writer.add_bool(key, flag)
                case int(number):
                    writer.add_uint32(key, number)
                case float(number):
                    writer.add_float32(key, number)
                case str(text):
                    writer.add_string(key, text)
                case list(items):
                    writer.add_array(key, items)
        for key, shape in _GGUF_SHAPES.items():
            writer.add_tensor(key, np.ones(shape, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


KINDS: dict[str, Callable[[random.Random, Path], Made]] = {
    "setting": _setting,
    "flag": _flag,
    "config file": _config_file,
    "data": _data,
    "model": _model,
    "GGUF": _gguf,
}
