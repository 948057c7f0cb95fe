"""Where the answer is; `experiments/graders/completions.jsonl` has more."""

import time

import pytest

from asyppo_jax.tasks.answers.extract import boxes, final_answers, last_boxed


def test_several_boxes_are_one_answer_only_if_a_joint_joins_them():
    assert final_answers(r"$x=\boxed{3}$ or $x=\boxed{-3}$") == ["3 , -3"]
    assert final_answers(r"\boxed{3}. Then \boxed{4}") == ["4"]
    assert final_answers(r"\boxed{3}\boxed{3}") == ["3"]
    assert len(boxes(r"\boxed{1} \fbox{2} \boxed{}")) == 2


def test_a_sentence_offers_its_formula_and_its_number():
    assert final_answers("The answer is 12 apples.") == ["12 apples", "12"]
    assert final_answers("The answer is 12 or 13.") == ["12 or 13"]


@pytest.mark.parametrize(
    ("completion", "answers"),
    [
        ("We add.\n#### 57\nThat is all of it.", ["57"]),
        ("#### 56\n#### 57", ["57"]),
        ("The names are compared.\n#### Evelyn\n", ["Evelyn"]),
        ("#### Subcase 2: \\( x = 0 \\)\nIt fails. So \\( x = 1 \\).", [" x = 1 "]),
        ("#### **Step 2: divide by 3**\nThe answer is 5.", ["5"]),
        ("#### 2. Divide by 3\nThe answer is 5.", ["5"]),
        ("#### Conclusion\nSo there are 5 apples.", ["5"]),
        ("#### 2\n#### Check\nIt holds.", ["2"]),
    ],
)
def test_a_heading_is_not_the_answer_behind_hashes(completion: str, answers: list[str]):
    assert final_answers(completion)[:1] == answers


@pytest.mark.parametrize(
    "completion",
    [
        r"\[ m = 96 / 3 \] So \(n = 2\): \[ m = \frac{100 - 8}{3} = \frac",
        r"The value of \(0.7 - 0.4\) is \[\boxed{\frac{3}{1",
        r"The value of 0.7 - 0.4 is \boxed{\frac{3}{10}",
        r"The value of 0.7 - 0.4 is \boxed {\frac{3}{10}",
    ],
)
def test_a_completion_that_is_cut_off_within_a_formula_has_no_answer(completion: str):
    assert final_answers(completion) == []


def test_an_empty_box_and_a_line_break_with_space_cut_nothing_off():
    assert final_answers(r"It is 5. \boxed{}") == ["5"]
    assert final_answers(r"So $\begin{pmatrix} 1 \\[2pt] 2 \end{pmatrix}$ and $x = 5$.") == [
        "x = 5"
    ]


@pytest.mark.parametrize(
    "text", [r"\boxed{", "<answer>", "answer is ", "$", r"\boxed{}", "\\boxed{\n", "#### ", "("]
)
def test_the_search_is_fast_in_a_degenerate_completion(text: str):
    start = time.process_time()
    final_answers(text * 10_000)
    assert time.process_time() - start < 3  # 0.5 s at most
    assert last_boxed(text) is None
