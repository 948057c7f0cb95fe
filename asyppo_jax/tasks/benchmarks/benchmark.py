"""What a benchmark is, and how its problems are found: in a local JSONL file, else on the hub."""

import dataclasses
import importlib.util
import os
from dataclasses import dataclass, field

from etils import epath

from asyppo_jax.config import DataConfig, PromptConfig, Truncation
from asyppo_jax.tasks.records import DataError, Record, load_records


@dataclass(frozen=True)
class Benchmark:
    """Where the problems come from, how they are asked, and how the answers are graded."""

    name: str  # as --benchmark takes it
    title: str  # as papers write it
    num_problems: int
    local: DataConfig  # a JSONL file; its path is relative to the directory of the data
    hub: DataConfig  # the same problems on the hub; its field names may differ
    # The paper's own system prompt, over the model's chat template (arXiv 2510.01656).
    prompt: PromptConfig = field(default_factory=PromptConfig)
    grader: str = "math"  # as config.reward.function
    max_completion_length: int = 8192  # tokens, the paper's
    spellings: bool = False  # answers are lists: any spelling of them is right


@dataclass(frozen=True)
class BenchmarkSettings(Truncation):
    """How a benchmark's problems are asked; None: as the benchmark says."""

    temperature: float = 0.99  # [P]
    top_p: float = 0.99  # [P]
    num_samples: int = 4  # k, answers to a problem [P]
    max_completion_length: int | None = None  # tokens
    seed: int = 0
    batch_size: int = 16  # problems sampled at once
    slots: int = 0  # sequences decoded at one time, whole problems; 0: all of the batch
    num_problems: int | None = None  # only the first n
    template: str | None = None  # "chat", or a text with {problem}
    system_prompt: str | None = None
    time_limit: float = 30.0  # seconds for the grading of an answer, on a busy machine
    num_workers: int = 2  # processes that grade


def data_directory() -> str:
    """The directory of the benchmarks' files: ASYPPO_DATA, else `data`."""
    return os.environ.get("ASYPPO_DATA", "data")


def load_problems(benchmark: Benchmark, directory: str) -> list[Record]:
    """All problems of a benchmark, in the order of its file.

    Raises:
        DataError: the file is not in `directory`, and the hub cannot be asked in its place.
    """
    file = epath.Path(directory) / benchmark.local.path
    if file.is_file():
        data = dataclasses.replace(benchmark.local, path=str(file))
    elif importlib.util.find_spec("datasets") is not None:
        data = benchmark.hub
    else:
        raise DataError(
            f"{benchmark.title} is not in {directory} (as {benchmark.local.path}); put it there, "
            "name its directory by --data_dir or ASYPPO_DATA, or run `pip install datasets` to "
            f"have {benchmark.hub.path} from the hub"
        )
    return load_records(data, spellings=benchmark.spellings)
