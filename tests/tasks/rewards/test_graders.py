import json
import time
from pathlib import Path

import pytest

from asyppo_jax.tasks.rewards import exact, last_boxed, math
from asyppo_jax.tasks.rewards.graders import MAX_SHOWN, Score, has_answer

MATH500 = Path(__file__).parents[4] / "shared" / "data" / "math500.jsonl"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{5}", "5"),
        (r"first \boxed{1}, then \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),  # an escaped brace is not a brace
        (r"\boxed {5}", "5"),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\boxed{3} and, cut off, \boxed{\frac{1", "3"),
        (r"\boxed{ \frac{1}{ then \boxed{4}", "4"),
        (r"a stray } before \boxed{6}", "6"),
        (r"\boxed{}", None),  # empty
        (r"\boxed{5}, in \boxed{} as asked", "5"),
        (r"\boxed 5", "5"),
        (r"\fbox{5}", "5"),
        (r"\boxed{5", None),
        (r"\\boxed{5}", None),  # a line break, then plain text
        ("no box", None),
        ("", None),
    ],
)
def test_last_boxed_returns_the_last_box_with_balanced_braces(text: str, content: str | None):
    assert last_boxed(text) == content


def test_a_degenerate_completion_is_searched_in_linear_time():
    start = time.process_time()
    assert last_boxed(r"\boxed{" * 50_000) is None
    assert time.process_time() - start < 5  # 0.05 s; a search from each box takes minutes


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("  red blue\n", 1.0),
        (r"It is \boxed{ red blue }.", 1.0),
        (r"\boxed{red} no, \boxed{red blue}", 1.0),
        (r"red blue \boxed{red}", 0.0),  # the box counts, not the text around it
        ("It is red blue", 0.0),
        ("Red blue", 0.0),
        ("", 0.0),
    ],
)
def test_exact_compares_the_box_or_else_the_full_completion_as_text(completion: str, reward: float):
    assert exact("problem", completion, " red blue ") == reward


@pytest.mark.parametrize(
    ("answer", "final_answer"),
    [
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", r"\dfrac{2}{4}"),
        ("x^2 - 1", "(x - 1)(x + 1)"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        ("2x + y", "y + 2x"),
        (r"\{1, 2, 3\}", r"\{3, 1, 2\}"),
        (r"(-\infty, 2] \cup [3, \infty)", r"[3, \infty) \cup (-\infty, 2]"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
        ("1,000", "1000"),
        ("5", r"5\text{ cm}"),
        ("x = 7", "7"),
        ("27.0", "27"),
        (r"\text{east}", r"\text{east}"),
    ],
)
def test_math_accepts_an_equivalent_answer(answer: str, final_answer: str):
    assert math("", rf"So it is $\boxed{{{final_answer}}}$.", answer) == 1.0


@pytest.mark.parametrize(
    ("answer", "final_answer"),
    [
        (r"\frac{1}{2}", "0.49"),
        ("x^2 - 1", "(x - 1)^2"),
        ("(1, 2)", "(2, 1)"),
        ("[0, 1)", "[0, 1]"),
        (r"\text{east}", r"\text{west}"),
        ("5", ""),
    ],
)
def test_math_rejects_a_different_answer(answer: str, final_answer: str):
    assert math("", rf"So it is $\boxed{{{final_answer}}}$.", answer) == 0.0


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("We add 3 and 4. The answer is 12.", 1.0),
        ("The final answer is $12$. Check: 12 - 4 = 8", 1.0),
        ("3 * 4 = 12", 1.0),
        (r"12 would be right, but \boxed{13}", 0.0),
        ("7 and 12 " * 3000 + "\nThe answer is 12", 1.0),
        ("12\n" + "so " * 3000, 0.0),  # not at the end
    ],
)
def test_math_takes_the_final_answer_if_there_is_no_box(completion: str, reward: float):
    assert math("", completion, "12") == reward


@pytest.mark.parametrize("completion", ["", "I do not know.", "$$ { \\frac \\boxed{", "\ud800"])
def test_a_completion_without_an_answer_is_wrong_not_a_grader_failure(completion: str):
    assert math("", completion, "12") == 0.0


def test_an_unreadable_reference_is_an_error_not_a_wrong_answer():
    with pytest.raises(ValueError, match="reference answer '' cannot be read"):
        math("", r"\boxed{1}", "")


@pytest.mark.parametrize("stride", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_real_reference_answers_equal_themselves(stride: int):
    if not MATH500.exists():
        pytest.skip(f"{MATH500.name} (HuggingFaceH4/MATH-500) is not next to the repository")
    records = [json.loads(line) for line in MATH500.read_text().splitlines()][::stride]
    boxed = [math("", rf"\boxed{{{r['answer']}}}", r["answer"]) for r in records]
    worked = [math("", r["solution"], r["answer"]) for r in records]
    assert sum(boxed) >= 0.99 * len(records)
    assert sum(worked) >= 0.99 * len(records)


def test_a_score_says_what_was_compared():
    score = math("", r"so \boxed{\frac{2}{4}}", "0.5")
    assert score == 1.0 and isinstance(score, Score)
    assert score.details == {
        "extracted": r"\frac{2}{4}",
        "compared": "0.5",
        "reason": "equal as quantity",
    }
    assert len(Score(0.0, extracted="5" * 1000).details["extracted"]) == MAX_SHOWN


def test_has_answer_finds_what_math_would_compare():
    assert has_answer("", "It is 5.", "") == 1.0 and has_answer("", "no idea", "") == 0.0
