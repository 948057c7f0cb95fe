"""Makes the quickstart's base model: `python -m experiments.quickstart.make_model --out=DIR`.

A small model of the Qwen3 architecture is trained from scratch on the text of
`experiments.quickstart.corpus`, whose style shares decide how the model answers. Most of the text
estimates, so the model mostly estimates and is mostly wrong. When it writes the steps, it is mostly
right. This is intended: reinforcement learning can discover that writing the steps helps. It does
not depend on the temperature, because the greedy answer is an estimate too.

The text has no evaluation problems. The same seed on the same machine gives the same weights.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asyppo_jax.models.actor_critic import Actor, Networks
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.rewards.graders import exact
from asyppo_jax.types import Params
from experiments.quickstart.corpus import draw_document
from experiments.quickstart.pretraining import batches, pretrain, sampled_completions, save_model
from experiments.quickstart.task import (
    MAX_COMPLETION_LENGTH,
    MAX_PROMPT_LENGTH,
    STYLES,
    Style,
    records,
    style_of,
)
from experiments.quickstart.tokenizer import VOCABULARY

MODEL = ModelConfig(
    model_type="qwen3",
    vocab_size=len(VOCABULARY),
    embed_dim=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    mlp_dim=256,
    norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling=None,
    tie_embeddings=True,
    qk_norm=True,
    attention_bias=False,
)
EVALUATION_SEED = 1


class Measurement(NamedTuple):
    """Accuracy and styles on held-out problems; NaN is the accuracy of a style that is not used."""

    accuracy: float
    style_share: dict[Style, float]
    style_accuracy: dict[Style, float]

    def __str__(self) -> str:
        styles = ", ".join(
            f"{style} {self.style_share[style]:.3f} of the answers, "
            f"{self.style_accuracy[style]:.3f} right"
            for style in STYLES
        )
        return f"accuracy {self.accuracy:.3f} ({styles})"


def measure(
    params: Params, networks: Networks, *, temperature: float, num_problems: int
) -> Measurement:
    """Accuracy and styles of one answer to each of `num_problems` held-out problems."""
    drawn = records("eval", num_problems, EVALUATION_SEED)
    problems = [Record(r["problem"], r["answer"]) for r in drawn]
    texts = sampled_completions(
        params,
        networks,
        problems,
        temperature=temperature,
        max_prompt_length=MAX_PROMPT_LENGTH + 1,
        max_completion_length=MAX_COMPLETION_LENGTH + 1,
    )
    styles = np.array([style_of(r.problem, t) for r, t in zip(problems, texts, strict=True)])
    scores = np.array([exact(r.problem, t, r.answer) for r, t in zip(problems, texts, strict=True)])
    return Measurement(
        accuracy=float(scores.mean()),
        style_share={style: float((styles == style).mean()) for style in STYLES},
        style_accuracy={
            style: float(scores[styles == style].mean()) if (styles == style).any() else np.nan
            for style in STYLES
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the quickstart's base model.")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--problems", type=int, default=1000, help="held-out problems to measure")
    arguments = parser.parse_args()
    params = pretrain(
        MODEL, batches(draw_document, arguments.seed), arguments.seed, arguments.steps
    )
    save_model(arguments.out, MODEL, params)
    networks = Networks(Actor(MODEL), None)
    for name, temperature in (("sampled at temperature 1", 1.0), ("greedy", 0.0)):
        result = measure(params, networks, temperature=temperature, num_problems=arguments.problems)
        print(f"{name}: {result}")


if __name__ == "__main__":
    main()
