"""Makes a Qwen3 model with random weights for benchmarks; the directory has no tokenizer.

    python -m experiments.benchmark.make_model --layers=8 --width=256 --vocabulary=4096 OUT

Attention heads have 64 features, two query heads share a key head, the MLP is three times as wide
as the model, and the output head is tied to the embedding, as in the family's small models.
"""

import argparse

import jax
from flax.core import meta

from asyppo_jax.models.actor_critic import Actor, init_actor
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.formats.huggingface import save_params


def architecture(layers: int, width: int, vocabulary: int) -> ModelConfig:
    return ModelConfig(
        model_type="qwen3",
        vocab_size=vocabulary,
        embed_dim=width,
        num_layers=layers,
        num_heads=width // 64,
        num_kv_heads=max(width // 128, 1),
        head_dim=64,
        mlp_dim=3 * width,
        norm_eps=1e-6,
        rope_theta=1e6,
        rope_scaling=None,
        tie_embeddings=True,
        qk_norm=True,
        attention_bias=False,
    )


def make_model(out: str, layers: int, width: int, vocabulary: int, seed: int = 0) -> None:
    config = architecture(layers, width, vocabulary)
    params = meta.unbox(jax.jit(lambda key: init_actor(Actor(config), key))(jax.random.key(seed)))
    save_params(out, config, params, "actor")
    print(f"{out}: {config.num_params:,} parameters")


def _width(text: str) -> int:
    if int(text) % 64:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 64, the width of a head")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a Qwen3 with random weights.")
    parser.add_argument("out", help="the directory to write")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=_width, default=256, help="a multiple of 64")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_model(
        arguments.out, arguments.layers, arguments.width, arguments.vocabulary, arguments.seed
    )


if __name__ == "__main__":
    main()
