"""Trains tiny language models from random weights on made documents, and writes them to disk.

The quickstart's base model and those of experiments/asyppo_study are made with it.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
from asyppo_jax.tasks.tokenizers import load_tokenizer
from asyppo_jax.types import Params
from experiments.quickstart.corpus import Document, Rows, packed_rows
from experiments.quickstart.task import PROMPT_TEMPLATE
from experiments.quickstart.tokenizer import EOS, PAD, VOCABULARY, make_tokenizer, save_tokenizer

ROWS, ROW_LENGTH = 32, 64
PEAK_LEARNING_RATE, WARMUP_STEPS = 3e-3, 100
LOG_EVERY = 100


def batches(
    draw_document: Callable[[random.Random], Document],
    seed: int,
    rows: int = ROWS,
    row_length: int = ROW_LENGTH,
) -> Iterator[Rows]:
    """An endless stream of batches of documents, each with an end-of-sequence token at its end."""
    rng, tokenizer = random.Random(seed), make_tokenizer()

    def documents() -> Iterator[tuple[list[int], list[int]]]:
        while True:
            prompt, completion = (tokenizer(text)["input_ids"] for text in draw_document(rng))
            yield prompt, [*completion, VOCABULARY.index(EOS)]

    while True:
        yield packed_rows(documents(), rows, row_length)


def mean_loss(params: Params, rows: Rows, networks: Networks) -> jax.Array:
    """The mean −log π of the completion tokens (nats); documents do not see each other.

    Prompts are random and cannot be predicted, so the loss does not include them.
    """
    inputs = rows.tokens, rows.positions, rows.document
    hidden, _ = networks.actor.apply({"params": params}, *inputs)
    head = networks.actor_head(params)
    log_probs, _ = log_probs_and_entropy(
        hidden[:, :-1], head, jnp.asarray(rows.tokens[:, 1:]), chunk=rows.tokens.shape[1]
    )
    mask = rows.is_completion[:, 1:]
    return -jnp.sum(log_probs * mask) / jnp.sum(mask)


def pretrain(
    model: ModelConfig,
    stream: Iterator[Rows],
    seed: int,
    num_steps: int,
    *,
    final_fraction: float = 0.02,
    log_every: int = LOG_EVERY,
    on_log: Callable[[int, Params], None] | None = None,
) -> Params:
    """The parameters after `num_steps` steps of AdamW; prints the loss every few steps.

    Args:
        model: the architecture.
        stream: batches of documents, one per step.
        seed: of the random weights at the start.
        num_steps: the learning rate warms up, then falls along half a cosine until this step.
        final_fraction: the last learning rate, as a fraction of the peak; 1: it does not fall.
        log_every: steps between printed losses.
        on_log: called with the step and the parameters whenever the loss is printed.
    """
    networks = Networks(Actor(model), None)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, WARMUP_STEPS, num_steps, final_fraction * PEAK_LEARNING_RATE
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
    for number in range(1, num_steps + 1):
        params, opt_state, loss = step(params, opt_state, next(stream))
        losses.append(loss)
        if number % log_every == 0 or number == num_steps:
            mean = float(np.mean(jax.device_get(losses)))
            seconds = time.perf_counter() - started
            print(f"step {number} of {num_steps}: loss {mean:.4f}, {seconds:.0f} s", flush=True)
            losses = []
            if on_log is not None:
                on_log(number, jax.device_get(params))
    return jax.device_get(params)


def sampled_completions(
    params: Params,
    networks: Networks,
    problems: Sequence[Record],
    *,
    temperature: float,
    max_prompt_length: int,
    max_completion_length: int,
) -> list[str]:
    """One completion of each problem; the lengths are in tokens."""
    tokenizer = make_tokenizer()
    config = PromptConfig(template=PROMPT_TEMPLATE, max_length=max_prompt_length)
    prompts, _ = make_prompts(problems, tokenizer, config)
    options = DecodingOptions(
        group_size=1,
        max_completion_length=max_completion_length,
        temperature=temperature,
        stop_ids=(VOCABULARY.index(EOS),),
        pad_id=VOCABULARY.index(PAD),
    )
    batch = pad_prompts(prompts, config.max_length, options.pad_id)
    program = jax.jit(sample, static_argnames=("networks", "options"))
    rollout = program(params, batch, jax.random.key(0), networks=networks, options=options)
    completions = np.asarray(rollout.tokens)[:, config.max_length :]
    return tokenizer.batch_decode(completions, skip_special_tokens=True)


def save_model(directory: Path, model: ModelConfig, params: Params, dtype: str = "float32") -> None:
    """Writes a model directory that this project and transformers can load."""
    save_params(directory, model, params, "actor", dtype)
    save_tokenizer(directory)
    tokenizer = load_tokenizer(str(directory))
    generation = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
