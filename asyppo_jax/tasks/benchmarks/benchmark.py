"""The fields of a benchmark, and its problems: read from a local JSONL file, else from the hub."""

import dataclasses
import importlib.util
import os
from dataclasses import dataclass, field
from typing import Literal

from etils import epath

from asyppo_jax.config import Config, ConfigError, DataConfig, PromptConfig, Truncation
from asyppo_jax.tasks.records import DataError, Record, load_records

# The suffix of a user's file -> its kind.
FILE_SOURCES: dict[str, Literal["jsonl", "parquet"]] = {".jsonl": "jsonl", ".parquet": "parquet"}
SUFFIXES_IN_WORDS = " or ".join(FILE_SOURCES)


@dataclass(frozen=True)
class Benchmark:
    """Where the problems come from, how they are prompted, and how the answers are graded."""

    name: str  # the value of --benchmark
    title: str  # the name in papers
    num_problems: int | None  # that it has; None: not known
    local: DataConfig  # a JSONL file, with its path relative to the data directory, or any data
    hub: DataConfig | None = None  # the same problems on the hub; its field names may differ
    # Default: the system prompt of the paper in the model's chat template (arXiv 2510.01656).
    prompt: PromptConfig = field(default_factory=PromptConfig)
    grader: str = "math"  # same syntax as config.reward.function
    weights: tuple[float, ...] = ()  # of several graders, as config.reward.weights
    max_completion_length: int = 8192  # tokens; the value of the paper. 0: that of the run
    spellings: bool = False  # an answer is a list of spellings; each of them is right


@dataclass(frozen=True)
class BenchmarkSettings(Truncation):
    """How answers are sampled and graded. None: the benchmark's value; [P]: the paper's."""

    temperature: float = 0.99  # [P]
    top_p: float = 0.99  # [P]
    num_samples: int = 4  # k, answers to a problem [P]
    max_completion_length: int | None = None  # tokens
    seed: int = 0
    batch_size: int = 16  # problems sampled at once
    slots: int = 0  # sequences decoded at a time, a multiple of num_samples; 0: the full batch
    num_problems: int | None = None  # use the first n problems; None: all
    template: str | None = None  # "chat", or a text that contains {problem}
    system_prompt: str | None = None
    time_limit: float = 30.0  # seconds to grade one answer; generous, for a busy machine
    num_workers: int = 2  # grading processes


def own_benchmark(
    path: str,
    *,
    problem_field: str = "problem",
    answer_field: str = "answer",
    answer_pattern: str = "",
    grader: str = "math",
) -> Benchmark:
    """A benchmark from a JSONL or parquet file of the user's.

    Raises:
        ConfigError: the file has another suffix.
    """
    file = epath.Path(path)
    source = FILE_SOURCES.get(file.suffix)
    if source is None:
        raise ConfigError(f"{path} is no benchmark; give a file that ends in {SUFFIXES_IN_WORDS}")
    data = DataConfig(
        source=source,
        path=path,
        problem_field=problem_field,
        answer_field=answer_field,
        answer_pattern=answer_pattern,
    )
    return Benchmark(
        name=file.stem,
        title=file.stem,
        num_problems=None,
        local=data,
        grader=grader,
        max_completion_length=0,
    )


def held_out_benchmark(config: Config) -> Benchmark:
    """The held-out problems of a run, with its own prompts and reward."""
    return Benchmark(
        name="held_out",
        title="held-out problems",
        num_problems=config.eval_data.num_records,
        local=config.eval_data,
        prompt=config.prompt,
        grader=config.reward.function,
        weights=config.reward.weights,
        max_completion_length=config.sampling.max_completion_length,
    )


def data_directory() -> str:
    """The directory of the benchmark files: the environment variable ASYPPO_DATA, else `data`."""
    return os.environ.get("ASYPPO_DATA", "data")


def load_problems(benchmark: Benchmark, directory: str) -> list[Record]:
    """All problems of a benchmark, in the order of its file.

    Raises:
        DataError: the file is not in `directory`, and `datasets`, which reads the hub, is missing;
            or a problem has no reference answer, and its grader needs one.
    """
    records = _load(benchmark, directory)
    unanswered = [i for i, record in enumerate(records) if not record.answer]
    if unanswered and benchmark.grader in ("math", "exact"):
        raise DataError(
            f"{len(unanswered)} of {len(records)} problems of {benchmark.title} have no reference "
            f"answer, the first is number {unanswered[0]} (from 0); fill it in, or remove them"
        )
    return records


def _load(benchmark: Benchmark, directory: str) -> list[Record]:
    local = benchmark.local
    if benchmark.hub is None:
        fix = "name its fields with problem_field and answer_field (--problem_field, ...)"
        return load_records(local, spellings=benchmark.spellings, fix=fix)
    file = epath.Path(directory) / benchmark.local.path
    if file.is_file():
        data = dataclasses.replace(benchmark.local, path=str(file))
    elif importlib.util.find_spec("datasets") is not None:
        data = benchmark.hub
    else:
        raise DataError(
            f"{benchmark.title} is not in {directory} (as {benchmark.local.path}); put it there, "
            "set --data_dir or ASYPPO_DATA to its directory, or run `pip install datasets` to "
            f"load {benchmark.hub.path} from the hub"
        )
    fix = f"{benchmark.title} has the fields {data.problem_field!r} and {data.answer_field!r}"
    return load_records(data, spellings=benchmark.spellings, fix=fix)
