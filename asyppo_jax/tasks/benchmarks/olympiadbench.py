"""OlympiadBench (arXiv 2402.14008): its open, text-only English mathematics.

An answer of several values ("$69$,$84$") is compared as a set: all of them are wanted, in any
order. Units are no part of an answer.
"""

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark

OLYMPIADBENCH = Benchmark(
    name="olympiadbench",
    title="OlympiadBench",
    num_problems=675,  # 674 on the hub
    local=DataConfig(
        source="jsonl",
        path="olympiadbench.jsonl",
        problem_field="question",
        answer_field="final_answer",
    ),
    hub=DataConfig(
        source="hub",
        path="Hothan/OlympiadBench:OE_TO_maths_en_COMP",
        split="train",
        problem_field="question",
        answer_field="final_answer",
    ),
)
