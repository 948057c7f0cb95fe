"""Answers on disk: appended batches, refused settings, and a last line that was cut off."""

import json

import pytest

from asyppo_jax.evaluation.answer_file import Answer, AnswerFile, AnswerFileError


def answer(index: int, completion: str = "x = \N{LATIN SMALL LETTER E WITH ACUTE}") -> Answer:
    return Answer(
        index=index,
        sample=0,
        problem="p",
        answer="1",
        completion=completion,
        verdict="right",
        score=1.0,
        truncated=False,
        length=3,
    )


def test_appended_answers_are_read_back(tmp_path):
    AnswerFile(str(tmp_path), {"seed": 0}).append([answer(0), answer(1)])
    file = AnswerFile(str(tmp_path), {"seed": 0})
    file.append([answer(2)])
    assert [a["index"] for a in AnswerFile(str(tmp_path), {"seed": 0}).answers] == [0, 1, 2]
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["completion"] for line in lines] == [answer(0)["completion"]] * 3


def test_a_completion_with_half_a_surrogate_pair_is_read_back(tmp_path):
    AnswerFile(str(tmp_path), {}).append([answer(0, "a\ud83d")])
    assert AnswerFile(str(tmp_path), {}).answers[0]["completion"] == "a\ud83d"


def test_a_cut_off_last_line_is_dropped_and_another_broken_line_is_an_error(tmp_path):
    AnswerFile(str(tmp_path), {}).append([answer(0), answer(1)])
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    file = AnswerFile(str(tmp_path), {})
    assert [a["index"] for a in file.answers] == [0]
    file.rewrite(file.answers)
    file.append([answer(1)])
    assert len(path.read_text().splitlines()) == 2
    path.write_text("no json\n" + path.read_text())
    with pytest.raises(AnswerFileError, match=r"answers\.jsonl, line 1, is not JSON"):
        AnswerFile(str(tmp_path), {})


@pytest.mark.parametrize(
    "line", ["3", "[]", "{}", '{"index": 0}', json.dumps(answer(0) | {"score": float("nan")})]
)
def test_a_line_that_is_no_answer_is_refused(tmp_path, line):
    AnswerFile(str(tmp_path), {})
    (tmp_path / "answers.jsonl").write_text(f"{json.dumps(answer(0))}\n{line}\n")
    with pytest.raises(AnswerFileError, match=r"line 2, is not an answer; remove the file"):
        AnswerFile(str(tmp_path), {})


@pytest.mark.parametrize("text", ["", "{", "3", "[1]"])
def test_damaged_settings_are_refused(tmp_path, text):
    AnswerFile(str(tmp_path), {}).append([answer(0)])
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(AnswerFileError, match=r"settings\.json is damaged .*; remove it and ans"):
        AnswerFile(str(tmp_path), {})


def test_the_error_for_other_settings_names_the_setting(tmp_path):
    AnswerFile(str(tmp_path), {"seed": 0, "top_p": 0.9}).append([answer(0)])
    with pytest.raises(AnswerFileError, match=r"made with seed = 0, but now it is 1; set another"):
        AnswerFile(str(tmp_path), {"seed": 1, "top_p": 0.9})


def test_settings_may_change_before_the_first_answer(tmp_path):
    AnswerFile(str(tmp_path), {"seed": 0})
    assert AnswerFile(str(tmp_path), {"seed": 1}).answers == []
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 1}


def test_changed_inputs_are_named_and_answers_without_a_hash_are_continued(tmp_path):
    words = {"weights": "the weights of runs/x"}
    AnswerFile(str(tmp_path), {"seed": 0}, {}).append([answer(0)])  # of an earlier version
    now = {"seed": 0, "weights": "a"}
    assert len(AnswerFile(str(tmp_path), now, words).answers) == 1
    assert len(AnswerFile(str(tmp_path), now, words).answers) == 1
    with pytest.raises(
        AnswerFileError,
        match=r"the weights of runs/x have changed since answers were written to .*; set another",
    ):
        AnswerFile(str(tmp_path), now | {"weights": "b"}, words)
    with pytest.raises(AnswerFileError, match="seed = 0, but now it is 1"):
        AnswerFile(str(tmp_path), {"seed": 1, "weights": "b"}, words)
