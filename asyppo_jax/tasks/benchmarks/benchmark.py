"""The fields of a benchmark, and its problems: read from a local JSONL file, else from the hub."""

import dataclasses
import importlib.util
import os
from dataclasses import dataclass, field

from etils import epath

from asyppo_jax.config import DataConfig, PromptConfig, Truncation
from asyppo_jax.tasks.records import DataError, Record, load_records


@dataclass(frozen=True)
class Benchmark:
    """Where the problems come from, how they are prompted, and how the answers are graded."""

    name: str  # the value of --benchmark
    title: str  # the name in papers
    num_problems: int
    local: DataConfig  # a JSONL file; its path is relative to the data directory
    hub: DataConfig  # the same problems on the hub; its field names may differ
    # Default: the system prompt of the paper in the model's chat template (arXiv 2510.01656).
    prompt: PromptConfig = field(default_factory=PromptConfig)
    grader: str = "math"  # same syntax as config.reward.function
    max_completion_length: int = 8192  # tokens; the value of the paper
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


def data_directory() -> str:
    """The directory of the benchmark files: the environment variable ASYPPO_DATA, else `data`."""
    return os.environ.get("ASYPPO_DATA", "data")


def load_problems(benchmark: Benchmark, directory: str) -> list[Record]:
    """All problems of a benchmark, in the order of its file.

    Raises:
        DataError: the file is not in `directory`, and `datasets`, which reads the hub, is missing.
    """
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
    return load_records(data, spellings=benchmark.spellings)
