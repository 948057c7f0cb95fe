r"""MinervaMath (arXiv 2206.14858): problems of MIT's science courses, some with several spellings.

A spelling like 4.5e33 is read as 4.5 \times 10^{33}, in answers as in references: math-verify takes
its e for Euler's number. Numbers must be equal, not near: 0.0331 is wrong where 0.033 is right.
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
    """1.0 if `math` finds the completion right by any of the references, a JSON list; else 0.0."""
    boxed = last_boxed(completion)
    given = completion if boxed is None else rf"\boxed{{{with_powers(boxed)}}}"
    failure: Exception | None = None
    for reference in json.loads(answer):
        try:
            if math(problem, given, with_powers(reference)):
                return 1.0
        except Exception as error:  # of this spelling; another may do
            failure = error
    if failure is not None:
        raise failure
    return 0.0


def with_powers(text: str) -> str:
    r"""4.5e33 as 4.5 \times 10^{33}."""
    return re.sub(r"(?<=\d)[eE]([+-]?\d+)\b", r" \\times 10^{\1}", text)
