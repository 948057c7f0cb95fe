r"""The GSM8K test set (arXiv 2110.14168); the answer is the text after ####."""

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark

GSM8K = Benchmark(
    name="gsm8k",
    title="GSM8K",
    num_problems=1319,
    local=DataConfig(
        source="jsonl",
        path="gsm8k_test.jsonl",
        problem_field="question",
        answer_pattern=r"####\s*(.+)",
    ),
    hub=DataConfig(
        source="hub",
        path="openai/gsm8k:main",
        split="test",
        problem_field="question",
        answer_pattern=r"####\s*(.+)",
    ),
    max_completion_length=1024,
)
