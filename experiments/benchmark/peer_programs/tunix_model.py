# pyright: reportMissingImports=false
"""Functions of both tunix peers: load its Qwen3 from a Hugging Face directory, print JSON."""

import json
from pathlib import Path

import jax.numpy as jnp
from tunix.models.qwen3 import model as qwen3
from tunix.models.qwen3 import params as qwen3_params


def report(**values):
    print(json.dumps(values), flush=True)


def load(directory):
    values = json.loads(Path(directory, "config.json").read_text())
    config = qwen3.ModelConfig(
        num_layers=values["num_hidden_layers"],
        vocab_size=values["vocab_size"],
        embed_dim=values["hidden_size"],
        hidden_dim=values["intermediate_size"],
        num_heads=values["num_attention_heads"],
        head_dim=values["head_dim"],
        num_kv_heads=values["num_key_value_heads"],
        rope_theta=values["rope_parameters"]["rope_theta"],
        norm_eps=values["rms_norm_eps"],
        use_tied_embedding=values["tie_word_embeddings"],
    )
    return qwen3_params.create_model_from_safe_tensors(directory, config, dtype=jnp.float32)
