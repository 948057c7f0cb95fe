r"""MinervaMath (arXiv 2206.14858): MIT science problems; some answers have several spellings.

4.5e33 is read as 4.5 \times 10^{33}, in answers and in references, because math-verify would read
the e as Euler's number. Numbers must be equal, not close: 0.0331 is wrong if 0.033 is right.
"""

import json
import re

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark
from asyppo_jax.tasks.rewards.graders import last_boxed, math

MINERVA_MATH = Benchmark(
    name="minerva_math",
    title="MinervaMath",
    num_problems=272,
    local=DataConfig(source="jsonl", path="minerva_math.jsonl"),
    hub=DataConfig(
        source="hub", path="math-ai/minervamath", split="test", problem_field="question"
    ),
    grader=f"{__name__}:any_spelling",
    spellings=True,
)


def any_spelling(problem: str, completion: str, answer: str) -> float:
    """1.0 if `math` accepts the completion for any reference of the JSON list `answer`, or 0.0."""
    boxed = last_boxed(completion)
    final_answer = completion if boxed is None else rf"\boxed{{{with_powers(boxed)}}}"
    failure: Exception | None = None
    for reference in json.loads(answer):
        try:
            if math(problem, final_answer, with_powers(reference)):
                return 1.0
        except Exception as error:  # another spelling may still match
            failure = error
    if failure is not None:
        raise failure
    return 0.0


def with_powers(text: str) -> str:
    r"""The text with each number such as 4.5e33 written as 4.5 \times 10^{33}."""
    return re.sub(r"(?<=\d)[eE]([+-]?\d+)\b", r" \\times 10^{\1}", text)
