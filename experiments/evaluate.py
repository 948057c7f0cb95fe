"""Evaluates a checkpoint on the paper's benchmarks, with the sampler of training.

    python -m experiments.evaluate --checkpoint=DIR_OR_NAME --benchmark=math500,amc23,...
        [--samples=4] [--step=best] [--data_dir=DIR] [--output=DIR] [--json]

The checkpoint is a run's workdir, a Hugging Face directory or a hub name. A benchmark is aime24,
aime25, math500, olympiadbench, minerva_math, amc23, gsm8k, "paper" for the paper's six, "held_out"
for the run's own held-out problems, or a file of yours that ends in .jsonl or .parquet. Every
answer and its score are written to OUTPUT/BENCHMARK/answers.jsonl. If the command is interrupted,
run it again: it continues where it stopped and gives the same answers.
"""

import dataclasses
import json
import re
import sys
from typing import Any

from absl import app, flags, logging
from etils import epath

from asyppo_jax.config import ConfigError, UserError
from asyppo_jax.config.ranges import check_range, range_of
from asyppo_jax.tasks.benchmarks import (
    FILE_SOURCES,
    Benchmark,
    BenchmarkSettings,
    data_directory,
    find_benchmark,
    held_out_benchmark,
    load_problems,
    own_benchmark,
)
from asyppo_jax.tasks.data_files import nearest_file
from experiments.command_line import (
    parse_flags,
    read_step,
    reward_of_run,
    stop,
    use_compile_cache,
)

DEFAULT = BenchmarkSettings()
PAPER = "aime24,aime25,math500,olympiadbench,minerva_math,amc23"

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A run's workdir, a Hugging Face directory or a hub name."
)
_STEP = flags.DEFINE_string(
    "step", "latest", "The run's checkpoint: a step, latest, or best (held-out reward)."
)
_BASE = flags.DEFINE_string(
    "base", None, "The directory of the model that the run started from, if it was moved."
)
_BENCHMARK = flags.DEFINE_list(
    "benchmark",
    [],
    'Names, "paper" for the paper\'s six, "held_out", or .jsonl and .parquet files.',
)
_PROBLEM_FIELD = flags.DEFINE_string("problem_field", "problem", "Of your own file: the problem.")
_ANSWER_FIELD = flags.DEFINE_string("answer_field", "answer", "Of your own file: the answer.")
_ANSWER_PATTERN = flags.DEFINE_string(
    "answer_pattern", "", "Of your own file: a regular expression whose group is the answer."
)
_GRADER = flags.DEFINE_string(
    "grader",
    None,
    'For a file of yours: "math" (default), "exact" or "module:function"; for held_out: instead of '
    "the run's reward.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "The directory of the benchmark files; default: $ASYPPO_DATA, else data."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "The directory for the answers; default: RUN/evaluations/step_N, or "
    "runs/evaluations/NAME for a model that is no run.",
)
_SAMPLES = flags.DEFINE_integer(
    "samples", None, f"Samples per problem; default: {DEFAULT.num_samples}, or 1 if greedy."
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", DEFAULT.temperature, "Sampling temperature; 0: greedy."
)
_TOP_P = flags.DEFINE_float("top_p", DEFAULT.top_p, "Nucleus sampling; 1: off.")
_MIN_P = flags.DEFINE_float(
    "min_p", DEFAULT.min_p, "Minimum probability relative to the most likely token's; 0: off."
)
_TOP_K = flags.DEFINE_integer("top_k", DEFAULT.top_k, "Sample from the k best tokens; 0: off.")
_MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens", None, "Maximum tokens per answer; default: the benchmark's, or the run's."
)
_SEED = flags.DEFINE_integer("seed", DEFAULT.seed, "Seed of the sampling.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", DEFAULT.batch_size, "Problems per batch.")
_SLOTS = flags.DEFINE_integer(
    "slots", DEFAULT.slots, "Sequences decoded at the same time; 0: the full batch."
)
_PROBLEMS = flags.DEFINE_integer("problems", None, "Only the first n problems of each benchmark.")
_TEMPLATE = flags.DEFINE_string(
    "template",
    None,
    r'"chat", or a text with {problem}, where \n is a new line; default: as in training.',
)
_SYSTEM_PROMPT = flags.DEFINE_string(
    "system_prompt", None, "The system message, used with the chat template."
)
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Dtype of the activations.")
_WORKERS = flags.DEFINE_integer("workers", DEFAULT.num_workers, "Number of grading processes.")
_TIME_LIMIT = flags.DEFINE_float(
    "time_limit", DEFAULT.time_limit, "Maximum seconds to grade one answer."
)
_JSON = flags.DEFINE_bool("json", False, "Print the results as one line of JSON at the end.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs what each of its threads does
    try:
        if len(argv) > 1:
            raise ConfigError(
                f"{argv[1]!r} is not a flag; separate the items of a list by commas without spaces"
            )
        targets = _targets()
        use_compile_cache(None)
        summaries = evaluate(*targets)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        stop("stopped; run the same command again to continue after the last batch")
    if _JSON.value:
        print(json.dumps(summaries))


def _targets() -> tuple[str, list[str]]:
    if not _CHECKPOINT.value:
        raise ConfigError("--checkpoint is missing; give a run, a model directory or a hub name")
    names = [
        n for name in _BENCHMARK.value for n in (PAPER if name == "paper" else name).split(",")
    ]
    if not names:
        raise ConfigError(
            f"--benchmark is missing; give one or more of {PAPER},gsm8k, held_out, or a file"
        )
    return _CHECKPOINT.value, names


def evaluate(checkpoint: str, names: list[str]) -> list[dict]:
    # Imported late, so that a wrong flag is reported before the slow imports.
    from asyppo_jax.evaluation.benchmark import check_grader, evaluate_benchmark, table
    from asyppo_jax.runs.load import load_actor
    from asyppo_jax.tasks.references import check_references

    data_dir = _DATA_DIR.value or data_directory()
    benchmarks = [_benchmark(name, checkpoint) for name in names]
    settings, grader = _settings(), "--grader" if _GRADER.value else "the grader"
    for benchmark in benchmarks:  # a mistake is reported before the weights are loaded
        records = load_problems(benchmark, data_dir)
        check_grader(benchmark, settings, grader)
        misread = check_references(records, spellings=benchmark.spellings).summary()
        if misread and benchmark.grader != "exact":
            print(f"{benchmark.title}: {misread}", file=sys.stderr)
    dtype: Any = _DTYPE.value
    actor = load_actor(checkpoint, step=read_step(_STEP.value), base=_BASE.value, dtype=dtype)
    output = _OUTPUT.value or _default_output(checkpoint, actor.step)
    summaries = []
    for benchmark in benchmarks:
        directory = f"{output}/{benchmark.name}"
        summaries.append(
            evaluate_benchmark(actor, benchmark, directory, data_dir=data_dir, settings=settings)
        )
        print(f"{benchmark.title}: {directory}/answers.jsonl", file=sys.stderr)
    print(table(summaries))
    return summaries


def _benchmark(name: str, checkpoint: str) -> Benchmark:
    if name == "held_out":
        from asyppo_jax.runs.checkpoint import is_run, read_settings

        if not is_run(checkpoint):
            if not epath.Path(checkpoint).exists():
                raise ConfigError(
                    f"--checkpoint={checkpoint} does not exist; give the workdir of a run"
                )
            raise ConfigError(
                f"--benchmark=held_out needs a run, whose held-out problems it takes, but "
                f"--checkpoint={checkpoint} is none; give a run, or a file of problems"
            )
        run = read_settings(checkpoint)
        reward = reward_of_run(run.reward, _GRADER.value)
        return held_out_benchmark(dataclasses.replace(run, reward=reward))
    if not name.endswith(tuple(FILE_SOURCES)):
        return find_benchmark(name)
    if not epath.Path(name).is_file():
        fix = nearest_file(name, "give the path of a file of problems")
        raise ConfigError(f"--benchmark={name} does not exist; {fix}")
    return own_benchmark(
        name,
        problem_field=_PROBLEM_FIELD.value,
        answer_field=_ANSWER_FIELD.value,
        answer_pattern=_ANSWER_PATTERN.value,
        grader=_GRADER.value or "math",
    )


def _settings() -> BenchmarkSettings:
    template = _TEMPLATE.value
    settings = BenchmarkSettings(
        num_samples=_num_samples(),
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
    for field in dataclasses.fields(settings):
        allowed, value = range_of(BenchmarkSettings, field.name), getattr(settings, field.name)
        if allowed is not None and value is not None:
            check_range(value, allowed, f"--{_FLAG_NAMES.get(field.name, field.name)}")
    return settings


# Settings whose flags have shorter names.
_FLAG_NAMES = {
    "num_samples": "samples",
    "max_completion_length": "max_tokens",
    "num_problems": "problems",
    "num_workers": "workers",
}


def _num_samples() -> int:
    if _SAMPLES.value is not None:
        return _SAMPLES.value
    return 1 if _TEMPERATURE.value == 0 else DEFAULT.num_samples


def _default_output(checkpoint: str, step: int | None) -> str:
    """For a run its directory `evaluations`, where `experiments.export` looks for scores."""
    if step is not None:
        return f"{checkpoint.rstrip('/')}/evaluations/step_{step}"
    name = re.sub(r"[^\w.-]+", "-", checkpoint.rstrip("/").rsplit("/", 1)[-1])
    return f"runs/evaluations/{name}"


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
