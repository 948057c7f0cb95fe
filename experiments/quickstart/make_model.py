"""Makes the quickstart's base model: `python -m experiments.quickstart.make_model --out=DIR`.

A small model of the Qwen3 architecture is trained from scratch on the text of
`experiments.quickstart.corpus`, whose style shares decide how the model answers. Most of the text
estimates, so the model mostly estimates and is mostly wrong. When it writes the steps, it is mostly
right. This is intended: reinforcement learning can discover that writing the steps helps. It does
not depend on the temperature, because the greedy answer is an estimate too.

The text has no evaluation problems. The same seed on the same machine gives the same weights.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import meta

from asyppo_jax.config import PromptConfig
from asyppo_jax.models.actor_critic import Actor, Networks, init_actor
from asyppo_jax.models.config import ModelConfig
from asyppo_jax.models.formats.huggingface import save_params
from asyppo_jax.ops.logits import log_probs_and_entropy
from asyppo_jax.sampling import DecodingOptions, sample
from asyppo_jax.tasks.prompts import make_prompts, pad_prompts
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.rewards.graders import exact
from asyppo_jax.tasks.tokenizers import load_tokenizer
from asyppo_jax.types import Params
from experiments.quickstart.corpus import Rows, draw_document, packed_rows
from experiments.quickstart.task import (
    MAX_COMPLETION_LENGTH,
    MAX_PROMPT_LENGTH,
    PROMPT_TEMPLATE,
    STYLES,
    Style,
    records,
    style_of,
)
from experiments.quickstart.tokenizer import EOS, PAD, VOCABULARY, make_tokenizer, save_tokenizer

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
ROWS, ROW_LENGTH = 32, 64
PEAK_LEARNING_RATE, WARMUP_STEPS = 3e-3, 100
LOG_EVERY = 100
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


def batches(seed: int) -> Iterator[Rows]:
    """An endless stream of batches of documents, each with an end-of-sequence token at its end."""
    rng, tokenizer = random.Random(seed), make_tokenizer()

    def documents() -> Iterator[tuple[list[int], list[int]]]:
        while True:
            prompt, completion = (tokenizer(text)["input_ids"] for text in draw_document(rng))
            yield prompt, [*completion, VOCABULARY.index(EOS)]

    while True:
        yield packed_rows(documents(), ROWS, ROW_LENGTH)


def mean_loss(params: Params, rows: Rows, networks: Networks) -> jax.Array:
    """The mean −log π of the completion tokens (nats); documents do not see each other.

    Prompts are random and cannot be predicted, so the loss does not include them.
    """
    inputs = rows.tokens, rows.positions, rows.document
    hidden, _ = networks.actor.apply({"params": params}, *inputs)
    head = networks.actor_head(params)
    log_probs, _ = log_probs_and_entropy(
        hidden[:, :-1], head, jnp.asarray(rows.tokens[:, 1:]), chunk=ROW_LENGTH
    )
    mask = rows.is_completion[:, 1:]
    return -jnp.sum(log_probs * mask) / jnp.sum(mask)


def pretrain(seed: int, num_steps: int) -> Params:
    """The parameters after `num_steps` steps of AdamW; prints the loss every few steps."""
    networks = Networks(Actor(MODEL), None)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, WARMUP_STEPS, num_steps, 0.02 * PEAK_LEARNING_RATE
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01)
    )

    @jax.jit
    def step(params, opt_state, rows):
        loss, grads = jax.value_and_grad(mean_loss)(params, rows, networks)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = meta.unbox(init_actor(networks.actor, jax.random.key(seed)))
    opt_state, losses, started = optimizer.init(params), [], time.perf_counter()
    stream = batches(seed)
    for number in range(1, num_steps + 1):
        params, opt_state, loss = step(params, opt_state, next(stream))
        losses.append(loss)
        if number % LOG_EVERY == 0 or number == num_steps:
            mean = float(np.mean(jax.device_get(losses)))
            seconds = time.perf_counter() - started
            print(f"step {number} of {num_steps}: loss {mean:.4f}, {seconds:.0f} s", flush=True)
            losses = []
    return jax.device_get(params)


def measure(
    params: Params, networks: Networks, *, temperature: float, num_problems: int
) -> Measurement:
    """Accuracy and styles of one answer to each of `num_problems` held-out problems."""
    tokenizer = make_tokenizer()
    drawn = records("eval", num_problems, EVALUATION_SEED)
    problems = [Record(r["problem"], r["answer"]) for r in drawn]
    config = PromptConfig(template=PROMPT_TEMPLATE, max_length=MAX_PROMPT_LENGTH + 1)
    prompts, _ = make_prompts(problems, tokenizer, config)
    options = DecodingOptions(
        group_size=1,
        max_completion_length=MAX_COMPLETION_LENGTH + 1,
        temperature=temperature,
        stop_ids=(VOCABULARY.index(EOS),),
        pad_id=VOCABULARY.index(PAD),
    )
    batch = pad_prompts(prompts, config.max_length, options.pad_id)
    program = jax.jit(sample, static_argnames=("networks", "options"))
    rollout = program(params, batch, jax.random.key(0), networks=networks, options=options)
    completions = np.asarray(rollout.tokens)[:, config.max_length :]
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
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


def save_model(directory: Path, params: Params) -> None:
    """Writes a model directory that this project and transformers can load."""
    save_params(directory, MODEL, params, "actor")
    save_tokenizer(directory)
    tokenizer = load_tokenizer(str(directory))
    generation = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the quickstart's base model.")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--problems", type=int, default=1000, help="held-out problems to measure")
    arguments = parser.parse_args()
    params = pretrain(arguments.seed, arguments.steps)
    save_model(arguments.out, params)
    networks = Networks(Actor(MODEL), None)
    for name, temperature in (("sampled at temperature 1", 1.0), ("greedy", 0.0)):
        result = measure(params, networks, temperature=temperature, num_problems=arguments.problems)
        print(f"{name}: {result}")


if __name__ == "__main__":
    main()
