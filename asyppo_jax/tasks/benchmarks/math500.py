"""MATH-500: 500 test problems of MATH (arXiv 2103.03874), selected in arXiv 2305.20050."""

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark

MATH500 = Benchmark(
    name="math500",
    title="MATH-500",
    num_problems=500,
    local=DataConfig(source="jsonl", path="math500.jsonl"),
    hub=DataConfig(source="hub", path="HuggingFaceH4/MATH-500", split="test"),
)
