"""Evaluates a checkpoint on the paper's benchmarks, with the sampler of training.

    python -m experiments.evaluate --checkpoint=DIR_OR_NAME --benchmark=math500,amc23,...
        [--samples=4] [--step=best] [--data_dir=DIR] [--output=DIR] [--json]

The checkpoint is a run's workdir, a Hugging Face directory or a hub name. Benchmarks: aime24,
aime25, math500, olympiadbench, minerva_math, amc23, gsm8k, or "paper" for the paper's six. Every
answer goes with its verdict to OUTPUT/BENCHMARK/answers.jsonl; the same command goes on where a
killed one stopped, and ends with the same answers.
"""

import json
import re
import sys
from typing import Any

from absl import app, flags, logging

from asyppo_jax.config import ConfigError, UserError
from asyppo_jax.tasks.benchmarks import (
    BenchmarkSettings,
    data_directory,
    find_benchmark,
    load_problems,
)
from experiments.command_line import parse_flags, read_step

DEFAULT = BenchmarkSettings()
PAPER = "aime24,aime25,math500,olympiadbench,minerva_math,amc23"

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A run's workdir, a Hugging Face directory or a hub name."
)
_STEP = flags.DEFINE_string("step", "latest", "Of a run: a step, latest, or best (held out).")
_BASE = flags.DEFINE_string(
    "base", None, "Of a run: where the model is that it was trained from, if no longer there."
)
_BENCHMARK = flags.DEFINE_list("benchmark", [], 'Their names, or "paper" for the paper\'s six.')
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where their files are; else ASYPPO_DATA, data.")
_OUTPUT = flags.DEFINE_string("output", None, "Where the answers go; else RUN/evaluations/step_N.")
_SAMPLES = flags.DEFINE_integer(
    "samples", None, f"Answers to a problem; else {DEFAULT.num_samples}, or 1 if greedy."
)
_TEMPERATURE = flags.DEFINE_float("temperature", DEFAULT.temperature, "0 is greedy.")
_TOP_P = flags.DEFINE_float("top_p", DEFAULT.top_p, "1: off.")
_MIN_P = flags.DEFINE_float("min_p", DEFAULT.min_p, "Of the likeliest's probability; 0: off.")
_TOP_K = flags.DEFINE_integer("top_k", DEFAULT.top_k, "0: off.")
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", None, "Of an answer; else as the benchmark says.")
_SEED = flags.DEFINE_integer("seed", DEFAULT.seed, "Of the sampling.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", DEFAULT.batch_size, "Problems sampled at once.")
_SLOTS = flags.DEFINE_integer(
    "slots", DEFAULT.slots, "Sequences decoded at one time; 0: all of a batch."
)
_PROBLEMS = flags.DEFINE_integer("problems", None, "Only the first n of each benchmark.")
_TEMPLATE = flags.DEFINE_string(
    "template", None, r'"chat", or a text with {problem}; \n is a new line. Else as trained.'
)
_SYSTEM_PROMPT = flags.DEFINE_string("system_prompt", None, "Of the chat template.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Of activations.")
_WORKERS = flags.DEFINE_integer("workers", DEFAULT.num_workers, "Processes that grade.")
_TIME_LIMIT = flags.DEFINE_float(
    "time_limit", DEFAULT.time_limit, "Seconds for the grading of one answer."
)
_JSON = flags.DEFINE_bool("json", False, "End with one line of JSON.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells each of its threads' doings at INFO
    try:
        if len(argv) > 1:
            raise ConfigError(f"{argv[1]!r} is no flag; lists have commas without spaces")
        summaries = evaluate(*_targets())
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last batch")
    if _JSON.value:
        print(json.dumps(summaries))


def _targets() -> tuple[str, list[str]]:
    if not _CHECKPOINT.value:
        raise ConfigError("--checkpoint is missing; give a run, a model directory or a hub name")
    names = [
        n for name in _BENCHMARK.value for n in (PAPER if name == "paper" else name).split(",")
    ]
    if not names:
        raise ConfigError(f"--benchmark is missing; give some of {PAPER},gsm8k")
    return _CHECKPOINT.value, names


def evaluate(checkpoint: str, names: list[str]) -> list[dict]:
    # Late, so that a wrong flag is told at once and not after the imports.
    from asyppo_jax.evaluation.benchmark import evaluate_benchmark, table
    from asyppo_jax.runs.load import load_actor

    data_dir = _DATA_DIR.value or data_directory()
    benchmarks = [find_benchmark(name) for name in names]
    for benchmark in benchmarks:  # before the weights are read
        load_problems(benchmark, data_dir)
    dtype: Any = _DTYPE.value
    actor = load_actor(checkpoint, step=read_step(_STEP.value), base=_BASE.value, dtype=dtype)
    output = _OUTPUT.value or _default_output(checkpoint, actor.step)
    summaries = []
    for benchmark in benchmarks:
        directory = f"{output}/{benchmark.name}"
        summaries.append(
            evaluate_benchmark(actor, benchmark, directory, data_dir=data_dir, settings=_settings())
        )
        print(f"{benchmark.title}: {directory}/answers.jsonl", file=sys.stderr)
    print(table(summaries))
    return summaries


def _settings() -> BenchmarkSettings:
    template = _TEMPLATE.value
    return BenchmarkSettings(
        num_samples=_SAMPLES.value or (1 if _TEMPERATURE.value == 0 else DEFAULT.num_samples),
        temperature=_TEMPERATURE.value,
        top_k=_TOP_K.value,
        top_p=_TOP_P.value,
        min_p=_MIN_P.value,
        max_completion_length=_MAX_TOKENS.value,
        seed=_SEED.value,
        batch_size=_BATCH_SIZE.value,
        slots=_SLOTS.value,
        num_problems=_PROBLEMS.value,
        template=None if template is None else template.replace("\\n", "\n"),
        system_prompt=_SYSTEM_PROMPT.value,
        time_limit=_TIME_LIMIT.value,
        num_workers=_WORKERS.value,
    )


def _default_output(checkpoint: str, step: int | None) -> str:
    """In a run its own `evaluations`, where `experiments.export` looks for scores."""
    if step is not None:
        return f"{checkpoint.rstrip('/')}/evaluations/step_{step}"
    name = re.sub(r"[^\w.-]+", "-", checkpoint.rstrip("/").rsplit("/", 1)[-1])
    return f"runs/evaluations/{name}"


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
