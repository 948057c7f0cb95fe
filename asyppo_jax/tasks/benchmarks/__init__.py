"""The six benchmarks of the paper and GSM8K, one small file per benchmark."""

from asyppo_jax.config import ConfigError
from asyppo_jax.tasks.benchmarks.aime24 import AIME24
from asyppo_jax.tasks.benchmarks.aime25 import AIME25
from asyppo_jax.tasks.benchmarks.amc23 import AMC23
from asyppo_jax.tasks.benchmarks.benchmark import (
    FILE_SOURCES,
    SUFFIXES_IN_WORDS,
    Benchmark,
    BenchmarkSettings,
    data_directory,
    held_out_benchmark,
    load_problems,
    own_benchmark,
)
from asyppo_jax.tasks.benchmarks.gsm8k import GSM8K
from asyppo_jax.tasks.benchmarks.math500 import MATH500
from asyppo_jax.tasks.benchmarks.minerva_math import MINERVA_MATH
from asyppo_jax.tasks.benchmarks.olympiadbench import OLYMPIADBENCH

__all__ = [
    "BENCHMARKS",
    "FILE_SOURCES",
    "Benchmark",
    "BenchmarkSettings",
    "data_directory",
    "find_benchmark",
    "held_out_benchmark",
    "load_problems",
    "own_benchmark",
]

BENCHMARKS = (AIME24, AIME25, MATH500, OLYMPIADBENCH, MINERVA_MATH, AMC23, GSM8K)


def find_benchmark(name: str) -> Benchmark:
    """The benchmark with this name; an unknown name raises `ConfigError` with the known names."""
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    if name not in by_name:
        raise ConfigError(
            f"there is no benchmark {name!r}; choose among {', '.join(by_name)}, held_out (the "
            f"problems of a run), or give a file that ends in {SUFFIXES_IN_WORDS}"
        )
    return by_name[name]
