"""AIME 2024: two exams of fifteen problems each; answers are integers from 000 to 999."""

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark

AIME24 = Benchmark(
    name="aime24",
    title="AIME24",
    num_problems=30,
    local=DataConfig(source="jsonl", path="aime24.jsonl"),
    hub=DataConfig(source="hub", path="HuggingFaceH4/aime_2024", split="train"),
)
