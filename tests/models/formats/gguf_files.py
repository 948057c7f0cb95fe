"""Small GGUF files, written with the gguf package, and the weights expected after conversion."""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quantization
from gguf.quants import quantize
from tokenizers import pre_tokenizers

LAYERS, EMBED, HEADS, KV_HEADS, HEAD_DIM, MLP = 2, 64, 4, 2, 16, 96
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = [
    *ALPHABET,
    "he",
    "ll",
    "hell",
    "12",
    "Ġ1",
    "<|endoftext|>",
    "<|im_end|>",
    "<tag>",
    "[PAD]",
]
MERGES = ["h e", "l l", "he ll", "1 2", "Ġ 1"]
ENDOFTEXT, IM_END = TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


def huggingface_weights(architecture):
    """Random weights by Hugging Face name, as a converted file must have them."""
    rng = np.random.default_rng(0)

    def matrix(*shape):
        return rng.normal(size=shape).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(len(TOKENS), EMBED),
        "model.norm.weight": matrix(EMBED),
    }
    for i in range(LAYERS):
        layer = {
            "input_layernorm.weight": matrix(EMBED),
            "post_attention_layernorm.weight": matrix(EMBED),
            "self_attn.q_proj.weight": matrix(HEADS * HEAD_DIM, EMBED),
            "self_attn.k_proj.weight": matrix(KV_HEADS * HEAD_DIM, EMBED),
            "self_attn.v_proj.weight": matrix(KV_HEADS * HEAD_DIM, EMBED),
            "self_attn.o_proj.weight": matrix(EMBED, HEADS * HEAD_DIM),
            "mlp.gate_proj.weight": matrix(MLP, EMBED),
            "mlp.up_proj.weight": matrix(MLP, EMBED),
            "mlp.down_proj.weight": matrix(EMBED, MLP),
        }
        if architecture == "qwen2":
            layer["self_attn.q_proj.bias"] = matrix(HEADS * HEAD_DIM)
            layer["self_attn.k_proj.bias"] = matrix(KV_HEADS * HEAD_DIM)
            layer["self_attn.v_proj.bias"] = matrix(KV_HEADS * HEAD_DIM)
        if architecture == "qwen3":
            layer["self_attn.q_norm.weight"] = matrix(HEAD_DIM)
            layer["self_attn.k_norm.weight"] = matrix(HEAD_DIM)
        weights |= {f"model.layers.{i}.{name}": array for name, array in layer.items()}
    return weights


def gguf_tensors(architecture):
    """The same weights under the names of the gguf package, rows permuted as llama.cpp does."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], LAYERS)
    tensors = {}
    for name, array in huggingface_weights(architecture).items():
        stem, suffix = name.rsplit(".", 1)
        for projection, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS)):
            if architecture == "llama" and projection in name:
                split = array.reshape(heads, 2, HEAD_DIM // 2, EMBED)
                array = split.swapaxes(1, 2).reshape(array.shape)
        tensors[f"{names.get_name(stem)}.{suffix}"] = array
    return tensors


def write_gguf(path, architecture="llama", *, tensors=None, stored_as=None, **changes):
    """Writes a small model; `changes` replace fields ("." as "__"), None removes a field."""
    fields = {
        "context_length": 128,
        "embedding_length": EMBED,
        "block_count": LAYERS,
        "feed_forward_length": MLP,
        "attention__head_count": HEADS,
        "attention__head_count_kv": KV_HEADS,
        "attention__key_length": HEAD_DIM,
        "attention__layer_norm_rms_epsilon": 1e-5,
        "rope__freq_base": 1e5,
        "rope__scaling__type": None,
    }
    fields = {f"{architecture}__{name}": value for name, value in fields.items()}
    control = gguf.TokenType.CONTROL
    special = [control, control, gguf.TokenType.USER_DEFINED, gguf.TokenType.UNUSED]
    fields |= {
        "split__count": None,
        "tokenizer__ggml__model": "gpt2",
        "tokenizer__ggml__pre": "smollm",
        "tokenizer__ggml__tokens": TOKENS,
        "tokenizer__ggml__token_type": [1] * (len(TOKENS) - 4) + [int(t) for t in special],
        "tokenizer__ggml__merges": MERGES,
        "tokenizer__ggml__bos_token_id": ENDOFTEXT,
        "tokenizer__ggml__eos_token_id": IM_END,
        "tokenizer__ggml__add_bos_token": False,
        "tokenizer__chat_template": TEMPLATE,
    }
    assert changes.keys() <= fields.keys(), f"unknown fields in {sorted(changes)}"
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in (fields | changes).items():
        key = name.replace("__", ".")
        match value:
            case None:
                continue
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case list():
                writer.add_array(key, value)
    for name, array in (gguf_tensors(architecture) if tensors is None else tensors).items():
        kind = (stored_as or {}).get(name, Quantization.F32)
        writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
