"""AMC 2023: the forty AMC 12 problems whose answer is a number (27.0 is read as 27)."""

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark

AMC23 = Benchmark(
    name="amc23",
    title="AMC 2023",
    num_problems=40,
    local=DataConfig(source="jsonl", path="amc23.jsonl", problem_field="question"),
    hub=DataConfig(source="hub", path="math-ai/amc23", split="test", problem_field="question"),
)
