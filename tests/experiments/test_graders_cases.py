"""Files of cases: both forms, the committed ones, and one sentence for a line that is no case."""

import json

import pytest

from experiments.graders.cases import COMMITTED, Case, CaseError, read_cases


def test_one_case_per_line_and_several_spellings(tmp_path):
    file = tmp_path / "cases.jsonl"
    case = {"id": 1, "kind": "a", "grader": "math", "gold": "5", "completion": "5", "right": 1}
    spellings = {**case, "id": "x", "grader": "minerva_math", "gold": '["5", "five"]', "right": 0}
    file.write_text(f"{json.dumps(case)}\n\n{json.dumps(spellings)}\n")
    assert read_cases(file) == [
        Case("1", "a", ("5",), "5", True),
        Case("x", "a", ("5", "five"), "5", False),
    ]


def test_answers_to_one_reference_stand_in_a_box_and_completions_as_they_are(tmp_path):
    file = tmp_path / "cases.jsonl"
    answers = {"reference": "5", "right": ["5.0"], "wrong": ["6", "7"]}
    file.write_text(f"{json.dumps({'kind': 'a', **answers})}\n{json.dumps(answers)}\n")
    cases = read_cases(file)
    assert cases[0] == Case("a, line 1, right 1", "a", ("5",), r"So it is $\boxed{5.0}$.", True)
    assert cases[5] == Case(
        "where the answer is, line 2, wrong 2", "where the answer is", ("5",), "7", False
    )


def test_the_committed_cases_have_right_and_wrong_ones_of_each_kind():
    cases = [case for path in COMMITTED for case in read_cases(path)]
    assert len(cases) > 900 and len({case.id for case in cases}) == len(cases)
    kinds = {case.kind for case in cases}
    assert len(kinds) > 20
    for right in (True, False):
        assert {case.kind for case in cases if case.right == right} == kinds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "has no cases"),
        ("{", "line 1, is not a case"),
        ("\n[1]", "line 2, is not a case"),
        ('{"kind": "a", "reference": "5", "right": []}', "KeyError: 'wrong'"),
        ('{"id": 1, "kind": "a", "grader": "minerva_math", "gold": "x"}', "JSONDecodeError"),
    ],
)
def test_a_line_that_is_no_case_is_named_in_one_sentence(tmp_path, text, message):
    file = tmp_path / "cases.jsonl"
    file.write_text(text)
    with pytest.raises(CaseError, match=message) as error:
        read_cases(file)
    assert "\n" not in str(error.value)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CaseError, match=r"none\.jsonl cannot be read"):
        read_cases(tmp_path / "none.jsonl")
