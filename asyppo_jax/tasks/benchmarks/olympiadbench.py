"""OlympiadBench (arXiv 2402.14008): its open-ended, text-only mathematics problems in English.

An answer with several values ("$69$,$84$") is compared as a set: the completion must give all of
them, in any order. Units are not part of an answer.
"""

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark

OLYMPIADBENCH = Benchmark(
    name="olympiadbench",
    title="OlympiadBench",
    num_problems=675,  # the hub has 674
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
