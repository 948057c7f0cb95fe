"""Whole verdicts: each kind of answer with right and wrong partners, and real references."""

import itertools
import json
import time
from pathlib import Path

import pytest

from asyppo_jax.tasks.answers.judge import (
    judge,
    read_reference,
    says_less,
    says_nothing,
    text_only,
)

HERE = Path(__file__).parent
CASES = HERE.parents[2] / "experiments" / "graders"  # the cases that graders are compared on
DATA = HERE.parents[3] / "shared" / "data"


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


ANSWERS = read_lines(CASES / "answers.jsonl")
COMPLETIONS = read_lines(CASES / "completions.jsonl")


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: f"{case['kind']}: {case['reference']}")
def test_each_kind_of_answer_is_right_or_wrong(case: dict):
    def right(answers: list[str]) -> list[str]:
        boxed = {answer: rf"So it is $\boxed{{{answer}}}$." for answer in answers}
        return [answer for answer, text in boxed.items() if judge(text, case["reference"]).right]

    assert right(case["right"]) == case["right"]
    assert right(case["wrong"]) == []


@pytest.mark.parametrize("case", COMPLETIONS, ids=lambda case: case["reference"])
def test_the_final_answer_of_a_completion_counts(case: dict):
    right = [text for text in case["right"] if judge(text, case["reference"]).right]
    assert right == case["right"]
    assert [text for text in case["wrong"] if judge(text, case["reference"]).right] == []


def test_a_verdict_says_what_was_compared_and_why():
    verdict = judge(r"so \boxed{\frac{2}{4}}", "0.5")
    assert (verdict.right, verdict.extracted, verdict.compared) == (True, r"\frac{2}{4}", "0.5")
    assert verdict.reason == "equal as quantity"
    assert judge("no idea", "5").reason == "there is no answer"
    assert judge(r"\boxed{5, 6}", "5").reason == "a listing, not a quantity"
    assert judge(r"\boxed{5 \text{ at most}}", "5").reason.startswith("not understood: words")


def test_a_misprinted_reference_is_read_as_it_is_meant_too():
    assert judge(r"\boxed{(0, 4]}", "$t(0,4]$").right
    assert judge(r"\boxed{\frac{\sqrt{x}}{2}}", r"$\frac{1}{2},\sqrt{x}$").right
    assert not judge(r"\boxed{\frac{1}{2}}", r"$\frac{1}{2},\sqrt{x}$").right


@pytest.mark.parametrize(
    "answer",
    [
        "1" * 5000,
        "(" * 2000,
        r"9^{9^{9^9}}",
        r"(10^{20})!",
        r"\frac{1}{" * 60 + "1" + "}" * 60,
        ",".join(map(str, range(2000))),
        r"\binom{10^{30}}{10^{29}}",
        r"\sin(10^{1000})",
        "x" * 900,
        "1e999999999",
    ],
)
@pytest.mark.parametrize("reference", ["5", "x^2+1", "(1,2)", r"\sum_{k=1}^n k", "x<3"])
def test_an_absurd_answer_is_wrong_and_takes_no_time(answer: str, reference: str):
    judge(r"\boxed{1+1}", reference)  # imports
    start = time.process_time()
    assert not judge(rf"\boxed{{{answer}}}", reference).right
    assert time.process_time() - start < 2  # 0.5 s at most


def test_an_empty_reference_is_an_error_not_a_wrong_answer():
    with pytest.raises(ValueError, match="reference answer ' ' cannot be read"):
        judge(r"\boxed{1}", " ")


def test_what_references_lack_is_found():
    assert text_only("$t(0,4]$") and not text_only("5") and not text_only(r"\sum_{k=1}^n k")
    assert says_nothing("x = x") and not says_nothing("K=k") and not says_nothing("x=5")
    assert says_less("$a x$, where $a$ is odd") and not says_less("a x")
    assert read_reference("5").problem is None


@pytest.mark.parametrize("name", ["math500", "olympiadbench", "minerva_math", "deepmath_5k"])
def test_real_references_equal_themselves_and_no_other(name: str):
    file = DATA / f"{name}.jsonl"
    if not file.exists():
        pytest.skip(f"{file.name} is not next to the repository")
    rows = [row.get("answer") or row["final_answer"][0] for row in read_lines(file)[::12]]
    references = [str(row[0] if isinstance(row, list) else row) for row in rows]
    assert [r for r in references if not judge(rf"\boxed{{{r}}}", r).right] == []
    others = itertools.pairwise(references)
    equal = [(a, b) for a, b in others if judge(rf"\boxed{{{b}}}", a).right]
    assert all(a.lower() == b.lower() for a, b in equal)
