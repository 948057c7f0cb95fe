import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Quantization
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file
from transformers import AutoConfig

from asyppo_jax.models.config import ModelError, RopeScaling, from_huggingface
from asyppo_jax.models.formats import gguf as converter
from asyppo_jax.models.formats.gguf import convert_gguf, rope_divisors, unpermute_rotary_rows
from tests.models.formats.gguf_files import (
    EMBED,
    ENDOFTEXT,
    HEAD_DIM,
    HEADS,
    IM_END,
    KV_HEADS,
    LAYERS,
    MLP,
    TOKENS,
    gguf_tensors,
    huggingface_weights,
    write_gguf,
)


def assert_same_tensors(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        assert tensors[name].dtype == array.dtype, name
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_float32_weights_are_converted_exactly(tmp_path, architecture):
    convert_gguf(write_gguf(tmp_path / "m.gguf", architecture), tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert_same_tensors(tensors, huggingface_weights(architecture))


def test_unpermuting_rotary_rows_of_a_hand_made_example():
    # One head of 6 rows: pairs (0, 3), (1, 4), (2, 5) are neighbours in the file.
    weight = np.array([0, 3, 1, 4, 2, 5])[:, None]
    np.testing.assert_array_equal(unpermute_rotary_rows(weight, 1)[:, 0], [0, 1, 2, 3, 4, 5])
    two_heads = np.concatenate([weight, weight + 6])
    np.testing.assert_array_equal(unpermute_rotary_rows(two_heads, 2)[:, 0], np.arange(12))


@pytest.mark.parametrize("kind", [Quantization.Q8_0, Quantization.Q5_0, Quantization.F16])
def test_quantised_weights_are_the_dequantised_values_exactly(tmp_path, kind):
    matrices = [name for name, array in gguf_tensors("qwen3").items() if array.ndim == 2]
    path = write_gguf(tmp_path / "m.gguf", "qwen3", stored_as=dict.fromkeys(matrices, kind))
    convert_gguf(path, tmp_path / "out")
    expected = {
        name: dequantize(quantize(array, kind), kind) if array.ndim == 2 else array
        for name, array in huggingface_weights("qwen3").items()
    }
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), expected)


def test_bfloat16_rounds_the_same_weights(tmp_path):
    convert_gguf(write_gguf(tmp_path / "m.gguf"), tmp_path / "out", dtype="bfloat16")
    rounded = huggingface_weights("llama")
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in rounded.items()}
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), rounded)


@pytest.mark.parametrize("finer", ["output.weight", "token_embd.weight"])
def test_a_matrix_stored_twice_is_tied_and_the_more_precise_copy_is_used(tmp_path, finer):
    tensors = gguf_tensors("qwen2")
    matrix = tensors["token_embd.weight"]
    tensors["output.weight"] = matrix
    stored = {"token_embd.weight": Quantization.Q5_0, "output.weight": Quantization.Q5_0}
    path = write_gguf(
        tmp_path / "m.gguf",
        "qwen2",
        tensors=tensors,
        stored_as=stored | {finer: Quantization.Q8_0},
    )
    convert_gguf(path, tmp_path / "out")
    converted = load_file(tmp_path / "out" / "model.safetensors")
    expected = dequantize(quantize(matrix, Quantization.Q8_0), Quantization.Q8_0)
    np.testing.assert_array_equal(converted["model.embed_tokens.weight"], expected)
    assert "lm_head.weight" not in converted
    assert AutoConfig.from_pretrained(tmp_path / "out").tie_word_embeddings


def test_a_separate_head_stays_untied(tmp_path):
    tensors = gguf_tensors("qwen2")
    head = np.random.default_rng(1).normal(size=(len(TOKENS), EMBED)).astype(np.float32)
    tensors["output.weight"] = head
    convert_gguf(write_gguf(tmp_path / "m.gguf", "qwen2", tensors=tensors), tmp_path / "out")
    converted = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(converted["lm_head.weight"], head)
    assert not AutoConfig.from_pretrained(tmp_path / "out").tie_word_embeddings


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_transformers_and_we_read_the_same_config(tmp_path, architecture):
    convert_gguf(write_gguf(tmp_path / "m.gguf", architecture), tmp_path / "out")
    theirs = AutoConfig.from_pretrained(tmp_path / "out")
    assert theirs.model_type == architecture
    assert (theirs.vocab_size, theirs.max_position_embeddings) == (len(TOKENS), 128)
    assert theirs.eos_token_id == [IM_END, ENDOFTEXT]
    ours = from_huggingface(json.loads((tmp_path / "out" / "config.json").read_text()), "out")
    assert (ours.embed_dim, ours.head_dim, ours.mlp_dim) == (EMBED, HEAD_DIM, MLP)
    assert (ours.num_layers, ours.num_heads, ours.num_kv_heads) == (LAYERS, HEADS, KV_HEADS)
    assert (ours.norm_eps, ours.rope_theta, ours.tie_embeddings) == (1e-5, 1e5, True)
    assert (ours.qk_norm, ours.attention_bias) == (architecture == "qwen3", architecture == "qwen2")


def llama3_tensors(factor, original):
    scaling = RopeScaling(factor, 1.0, 4.0, original)
    divisors = rope_divisors(scaling, 1e5, HEAD_DIM).astype(np.float32)
    return gguf_tensors("llama") | {"rope_freqs.weight": divisors}


def test_llama3_rotary_scaling_is_recovered_from_its_divisors(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tensors=llama3_tensors(32.0, 8192))
    convert_gguf(path, tmp_path / "out")
    config = from_huggingface(json.loads((tmp_path / "out" / "config.json").read_text()), "out")
    assert config.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)


def broken(path, tensors, **changes):
    return write_gguf(path, tensors=gguf_tensors("llama") | tensors, **changes)


def without(path, name):
    tensors = gguf_tensors("llama")
    del tensors[name]
    return write_gguf(path, tensors=tensors)


def truncated(path, share):
    content = write_gguf(path).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def text_file(path):
    path.write_text("version https://example.org/spec\n")
    return path


ERRORS = {
    "unknown tensor": (
        lambda p: broken(p, {"blk.0.ffn_gate_inp.weight": np.ones((2, 2), np.float32)}),
        "tensor 'blk.0.ffn_gate_inp.weight' is unknown",
    ),
    "too many layers": (
        lambda p: write_gguf(p, llama__block_count=1),
        "tensor 'blk.1.attn_norm.weight' is unknown",
    ),
    "missing tensor": (
        lambda p: without(p, "blk.1.ffn_up.weight"),
        "no tensor 'blk.1.ffn_up.weight'",
    ),
    "no embedding": (lambda p: without(p, "token_embd.weight"), "no tensor 'token_embd.weight'"),
    "wrong shape": (
        lambda p: broken(p, {"blk.0.ffn_up.weight": np.ones((MLP, EMBED - 1), np.float32)}),
        rf"'blk.0.ffn_up.weight' has shape \({MLP}, {EMBED - 1}\)",
    ),
    "missing field": (
        lambda p: write_gguf(p, llama__embedding_length=None),
        "no field 'llama.embedding_length'",
    ),
    "architecture": (
        lambda p: write_gguf(p, "gemma", tensors=gguf_tensors("llama")),
        "architecture 'gemma' is not supported",
    ),
    "rotary scaling": (
        lambda p: write_gguf(p, llama__rope__scaling__type="yarn"),
        "rotary scaling 'yarn' is not supported",
    ),
    "unknown divisors": (
        lambda p: write_gguf(p, tensors=llama3_tensors(8.0, 2048)),
        "rope_freqs.weight is not the rotary scaling",
    ),
    "one part of several": (lambda p: write_gguf(p, split__count=3), "one of 3 parts"),
    "sentencepiece": (
        lambda p: write_gguf(p, tokenizer__ggml__model="llama"),
        "tokenizer 'llama' is not supported",
    ),
    "unknown pretokenizer": (
        lambda p: write_gguf(p, tokenizer__ggml__pre="jais"),
        "tokenizer.ggml.pre 'jais' is not supported",
    ),
    "pretokenizer is a list": (
        lambda p: write_gguf(p, tokenizer__ggml__pre=["smollm"]),
        r"tokenizer.ggml.pre \['smollm'\] is not supported",
    ),
    "no stop token": (
        lambda p: write_gguf(p, tokenizer__ggml__eos_token_id=None),
        "no field 'tokenizer.ggml.eos_token_id'",
    ),
    "end token out of range": (
        lambda p: write_gguf(p, tokenizer__ggml__eos_token_id=9999),
        "eos_token_id is 9999, but the tokens have the ids 0 to",
    ),
    "first token out of range": (
        lambda p: write_gguf(p, tokenizer__ggml__bos_token_id=9999),
        "bos_token_id is 9999, but the tokens",
    ),
    "end token as text": (
        lambda p: write_gguf(p, tokenizer__ggml__eos_token_id="<eos>"),
        "eos_token_id is '<eos>', but the tokens",
    ),
    "no context length": (
        lambda p: write_gguf(p, llama__context_length=None),
        "no field 'llama.context_length'",
    ),
    "zero heads": (
        lambda p: write_gguf(p, llama__attention__head_count=0),
        r"attention.head_count is 0; it must be a whole number in \[1",
    ),
    "zero key heads": (
        lambda p: write_gguf(p, llama__attention__head_count_kv=0),
        "attention.head_count_kv is 0; it must be",
    ),
    "three key heads": (
        lambda p: write_gguf(p, llama__attention__head_count_kv=3),
        "4 attention heads cannot share 3 heads",
    ),
    "eps as text": (
        lambda p: write_gguf(p, llama__attention__layer_norm_rms_epsilon="1e-5"),
        "attention.layer_norm_rms_epsilon is '1e-5'; it must be a number",
    ),
    "theta is NaN": (
        lambda p: write_gguf(p, llama__rope__freq_base=float("nan")),
        "rope.freq_base is nan; it must be a number",
    ),
    "parts as text": (lambda p: write_gguf(p, split__count="3"), "one of 3 parts"),
    "odd merge": (
        lambda p: write_gguf(p, tokenizer__ggml__merges=["h e", "ll"]),
        "merges has 'll', which is not two tokens",
    ),
    "merge of unknown tokens": (
        lambda p: write_gguf(p, tokenizer__ggml__merges=["he zz"]),
        "tokenizer.ggml.merges cannot be used",
    ),
    "merges as text": (
        lambda p: write_gguf(p, tokenizer__ggml__merges="h e"),
        "tokenizer.ggml.merges is 'h e', not a list of texts",
    ),
    "too few token types": (
        lambda p: write_gguf(p, tokenizer__ggml__token_type=[1, 1]),
        "tokens but 2 token types",
    ),
    "template is a number": (
        lambda p: write_gguf(p, tokenizer__chat_template=3),
        "chat_template is 3, not a text",
    ),
    "not GGUF": (text_file, "is not a GGUF file"),
    "no file": (lambda p: p, "is not a file"),
    "truncated in the fields": (lambda p: truncated(p, 0.01), "truncated or damaged"),
    "truncated in the tensors": (lambda p: truncated(p, 0.6), "truncated or damaged"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_bad_file_gives_a_one_line_error_and_leaves_no_output(tmp_path, case):
    write, message = ERRORS[case]
    path = write(tmp_path / "m.gguf")
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelError, match=message) as raised:
        convert_gguf(path, tmp_path / "models" / "out")
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    assert not list((tmp_path / "models").iterdir())


def test_an_output_that_is_not_empty_is_refused_and_unchanged(tmp_path):
    path = write_gguf(tmp_path / "m.gguf")
    (tmp_path / "out").mkdir()
    convert_gguf(path, tmp_path / "out")  # an empty directory is allowed
    files = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(ModelError, match="exists and is not an empty directory"):
        convert_gguf(path, tmp_path / "out", dtype="bfloat16")
    with pytest.raises(ModelError, match="exists and is not an empty directory"):
        convert_gguf(path, path)
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == files


def test_a_full_disk_leaves_no_incomplete_model(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(converter, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        convert_gguf(write_gguf(tmp_path / "m.gguf"), tmp_path / "models" / "out")
    assert not list((tmp_path / "models").iterdir())


def test_the_command_prints_a_one_line_error_and_exits_with_status_one(tmp_path):
    command = [sys.executable, "-m", "experiments.convert", f"--output={tmp_path / 'out'}"]
    root = Path(__file__).parents[3]

    def run(path):
        return subprocess.run(
            [*command, f"--gguf={path}"], cwd=root, capture_output=True, text=True, check=False
        )

    failed = run(text_file(tmp_path / "notes.txt"))
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith("error: ")
    assert not (tmp_path / "out").exists()
    assert run(write_gguf(tmp_path / "m.gguf")).returncode == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_command_without_the_package_shows_its_help_and_names_what_to_install(tmp_path):
    program = (
        "import runpy, sys; sys.modules['gguf'] = None; sys.argv[0] = 'convert'; "
        "runpy.run_module('experiments.convert', run_name='__main__')"
    )

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
        )

    assert "--gguf: The file to read." in run("--help").stdout
    failed = run("--gguf=m.gguf", f"--output={tmp_path / 'out'}")
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith("error: reading GGUF files needs the package gguf")
    assert line.endswith("run `pip install -e '.[gguf]'` at the top of the checkout")
    missing = run()
    assert missing.stderr == "error: --gguf, --output are missing; --help lists the flags\n"
