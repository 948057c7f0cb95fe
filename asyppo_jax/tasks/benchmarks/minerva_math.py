r"""MinervaMath (arXiv 2206.14858): MIT science problems; some answers have several spellings.

4.5e33 is 4.5 \times 10^{33}. Numbers must be equal, not close: 0.0331 is wrong if 0.033 is right.
"""

import json

from asyppo_jax.config import DataConfig
from asyppo_jax.tasks.benchmarks.benchmark import Benchmark
from asyppo_jax.tasks.rewards.graders import math

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
    """The score of `math` for the first reference of the JSON list `answer` that accepts it, or 0.

    Raises:
        Exception: no reference accepts the completion, and one of them could not be compared.
    """
    failure: Exception | None = None
    score = 0.0
    for reference in json.loads(answer):
        try:
            score = math(problem, completion, reference)
        except Exception as error:  # another spelling may still match
            failure = error
            continue
        if score:
            return score
    if failure is not None:
        raise failure
    return score
