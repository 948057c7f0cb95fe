"""AIME 2025: two exams of fifteen problems each; answers are integers from 000 to 999."""

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark

AIME25 = Benchmark(
    name="aime25",
    title="AIME25",
    num_problems=30,
    local=DataConfig(source="jsonl", path="aime25.jsonl"),
    hub=DataConfig(source="hub", path="math-ai/aime25", split="test"),
)
