"""Makes the study's two actors: `python -m experiments.asyppo_study.make_models --out=DIR`.

Two tiny models of different families are trained from scratch on the text of
`experiments.asyppo_study.corpus`. Training stops early, so they write the steps but often get them
wrong. The text has no evaluation problems. The same seed on the same machine gives the same
weights.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from asyppo_jax.models.actor_critic import Actor, Networks
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.rewards.graders import exact
from asyppo_jax.types import Params
from experiments.asyppo_study import tasks
from experiments.asyppo_study.corpus import draw_document
from experiments.quickstart.make_model import MODEL as QUICKSTART_MODEL
from experiments.quickstart.pretraining import batches, pretrain, sampled_completions, save_model

_QWEN3 = dataclasses.replace(QUICKSTART_MODEL, num_layers=6, mlp_dim=320)
_LLAMA = dataclasses.replace(
    _QWEN3,
    model_type="llama",
    num_kv_heads=4,
    mlp_dim=288,
    norm_eps=1e-5,
    tie_embeddings=False,
    qk_norm=False,
)
MODELS = {"qwen3": _QWEN3, "llama": _LLAMA}
NUM_STEPS = {"qwen3": 1200, "llama": 3800}
ROWS, ROW_LENGTH = 16, 40  # a document per row
LOG_EVERY = 200
EVALUATION_SEED = 1


def accuracy(
    task: tasks.Task,
    params: Params,
    networks: Networks,
    temperature: float,
    num_problems: int,
) -> float:
    """The share of right answers, one to each of `num_problems` held-out problems."""
    drawn = getattr(tasks, task)("eval", num_problems, EVALUATION_SEED)
    problems = [Record(r["problem"], r["answer"]) for r in drawn]
    texts = sampled_completions(
        params,
        networks,
        problems,
        temperature=temperature,
        max_prompt_length=tasks.MAX_PROMPT_LENGTH,
        max_completion_length=tasks.MAX_COMPLETION_LENGTH,
    )
    scores = [exact(r.problem, t, r.answer) for r, t in zip(problems, texts, strict=True)]
    return float(np.mean(scores))


def make_model(name: str, out: Path, seed: int, num_steps: int, num_problems: int) -> None:
    """Trains a model, writes it to `out`/`name`, and prints its accuracies."""
    model = MODELS[name]
    networks = Networks(Actor(model), None)

    def print_accuracies(params: Params, temperature: float, count: int) -> None:
        values = [
            f"{task} {accuracy(task, params, networks, temperature, count):.3f}"
            for task in tasks.TASKS
        ]
        print(f"{name}, temperature {temperature:g}: {', '.join(values)}", flush=True)

    def on_log(step: int, params: Params) -> None:
        print_accuracies(params, 1.0, 256)
        save_model(out / f"{name}_{step}", model, params, "bfloat16")

    params = pretrain(
        model,
        batches(draw_document, seed, ROWS, ROW_LENGTH),
        seed,
        num_steps,
        final_fraction=1.0,
        log_every=LOG_EVERY,
        on_log=on_log,
    )
    save_model(out / name, model, params, "bfloat16")
    for temperature in (1.0, 0.0):
        print_accuracies(params, temperature, num_problems)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the study's base models.")
    parser.add_argument("--out", type=Path, required=True, help="a directory is written per model")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="default: the study's, per model")
    parser.add_argument("--problems", type=int, default=1000, help="held-out problems to measure")
    arguments = parser.parse_args()
    for name in arguments.models:
        steps = arguments.steps or NUM_STEPS[name]
        make_model(name, arguments.out, arguments.seed, steps, arguments.problems)


if __name__ == "__main__":
    main()
