"""A benchmark on a small random model: counts, verdicts, and resuming after a kill."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from asyppo_jax.config import ConfigError, DataConfig
from asyppo_jax.evaluation.answer_file import AnswerFileError
from asyppo_jax.evaluation.benchmark import (
    choose_prompt,
    evaluate_benchmark,
    summarize_answers,
    table,
)
from asyppo_jax.runs.load import load_actor
from asyppo_jax.tasks.benchmarks import Benchmark, BenchmarkSettings, load_problems
from tests.evaluation.test_answer_file import answer
from tests.tiny import save_model_directory

PROBLEMS = (
    "1+1",
    "2+3",
    "4+4+1+7+2+2+9",
    "9+9",
    "5+1",
)  # batches of two, so the last one is filled up
SETTINGS = BenchmarkSettings(
    num_samples=3, batch_size=2, max_completion_length=6, template="{problem}=", time_limit=60.0
)


@pytest.fixture(scope="module")
def actor(tmp_path_factory):
    return load_actor(save_model_directory(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    rows = [{"problem": p, "answer": str(eval(p))} for p in PROBLEMS]
    (directory / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(directory)


def sums(grader: str = "exact") -> Benchmark:
    local = DataConfig(source="jsonl", path="sums.jsonl")
    return Benchmark("sums", "Sums", len(PROBLEMS), local, DataConfig(), grader=grader)


@pytest.fixture(scope="module")
def complete(actor, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("complete")
    return output, evaluate_benchmark(actor, sums(), str(output), data_dir=data, settings=SETTINGS)


def read(output):
    return [json.loads(line) for line in (output / "answers.jsonl").read_text().splitlines()]


def test_every_problem_has_k_answers_in_order(complete):
    output, summary = complete
    answers = read(output)
    assert [(a["index"], a["sample"]) for a in answers] == [
        (i, j) for i in range(5) for j in range(3)
    ]
    assert [a["problem"] for a in answers[::3]] == list(PROBLEMS)
    assert all(1 <= a["length"] <= 6 for a in answers)
    assert (
        summary["answers_made"] == 15
        and json.loads((output / "summary.json").read_text()) == summary
    )


@pytest.mark.parametrize("lines", [0, 6, 8, 14, 15])
def test_a_killed_evaluation_resumes_to_the_same_answers(complete, actor, data, tmp_path, lines):
    output, summary = complete
    text = (output / "answers.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "settings.json").write_bytes((output / "settings.json").read_bytes())
    (tmp_path / "answers.jsonl").write_text("".join(text[:lines]) + ("{" if lines == 8 else ""))
    again = evaluate_benchmark(actor, sums(), str(tmp_path), data_dir=data, settings=SETTINGS)
    assert (tmp_path / "answers.jsonl").read_text() == "".join(text)
    assert again["answers_made"] == {0: 15, 6: 9, 8: 9, 14: 3, 15: 0}[lines]
    timed = {"seconds", "answers_made", "tokens_per_s"}
    assert {k: v for k, v in again.items() if k not in timed} == {
        k: v for k, v in summary.items() if k not in timed
    }


def test_another_seed_gives_other_answers_and_needs_another_output(complete, actor, data, tmp_path):
    other = dataclasses.replace(SETTINGS, seed=1)
    with pytest.raises(AnswerFileError, match="made with seed = 0, but now it is 1"):
        evaluate_benchmark(actor, sums(), str(complete[0]), data_dir=data, settings=other)
    evaluate_benchmark(actor, sums(), str(tmp_path), data_dir=data, settings=other)
    assert [a["completion"] for a in read(tmp_path)] != [a["completion"] for a in read(complete[0])]


def test_a_model_that_was_moved_keeps_its_answers(complete, actor, data, tmp_path):
    moved = shutil.copytree(actor.path, tmp_path / "moved")
    actor = dataclasses.replace(actor, path=str(moved))
    before = (complete[0] / "answers.jsonl").read_bytes()
    evaluate_benchmark(actor, sums(), str(complete[0]), data_dir=data, settings=SETTINGS)
    assert (complete[0] / "answers.jsonl").read_bytes() == before


@pytest.mark.parametrize("changed", ["answer", "weights"])
def test_changed_problems_or_weights_need_another_output(complete, actor, data, tmp_path, changed):
    rows = [json.loads(line) for line in (Path(data) / "sums.jsonl").read_text().splitlines()]
    rows[2]["answer"] += "0" * (changed == "answer")
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = r"the problems or answers of Sums \(sums.jsonl\) have changed since answers were"
    if changed == "weights":
        model = shutil.copytree(actor.path, tmp_path / "model")
        with open(model / "model.safetensors", "r+b") as file:
            file.seek(-1, 2)
            file.write(b"!")
        (tmp_path / "out").mkdir()
        settings = json.loads((complete[0] / "settings.json").read_text())
        settings["checkpoint"] = str(model)
        (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))
        shutil.copy(complete[0] / "answers.jsonl", tmp_path / "out")
        complete = (tmp_path / "out",)
        actor = dataclasses.replace(actor, path=str(model))
        words = r"the weights of .*/model have changed since answers were written"
    with pytest.raises(AnswerFileError, match=words):
        evaluate_benchmark(
            actor, sums(), str(complete[0]), data_dir=str(tmp_path), settings=SETTINGS
        )


@pytest.mark.filterwarnings("ignore:1.*no score")
def test_ungraded_answers_count_as_wrong_and_are_counted_separately(actor, data, tmp_path):
    benchmark = sums("tests.graders:right_for_two_and_three")
    summary = evaluate_benchmark(actor, benchmark, str(tmp_path), data_dir=data, settings=SETTINGS)
    verdicts = [a["verdict"] for a in read(tmp_path)]
    assert verdicts[:3] == ["ungraded"] * 3 and verdicts[3:6] == ["right"] * 3
    assert set(verdicts[6:]) <= {"wrong", "no_answer"}
    assert summary["avg@3"] == pytest.approx(3 / 15) and summary["ungraded"] == 3
    assert summary["no_answer"] == verdicts.count("no_answer")
    assert summary["pass@1"] == pytest.approx(0.2) and summary["pass@3"] == pytest.approx(0.2)


def test_ungraded_answers_are_graded_again_without_sampling(complete, actor, data, tmp_path):
    output, summary = complete
    answers = read(output)
    for a in answers[3:5]:
        a["verdict"], a["score"] = "ungraded", 0.0
    shutil.copytree(output, tmp_path / "copy")
    (tmp_path / "copy" / "answers.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    again = evaluate_benchmark(
        actor, sums(), str(tmp_path / "copy"), data_dir=data, settings=SETTINGS
    )
    assert read(tmp_path / "copy") == read(output)
    assert again["answers_made"] == 0 and again["ungraded"] == 0
    assert again["avg@3"] == summary["avg@3"]


def test_a_summary_worked_by_hand():
    made = [answer(i // 2) for i in range(6)]
    verdicts = ("right", "no_answer", "wrong", "ungraded", "right", "right")
    for i, verdict in enumerate(verdicts):
        made[i]["verdict"], made[i]["score"] = verdict, float(verdict == "right")
        made[i]["truncated"], made[i]["length"] = i in (1, 2, 4), i + 1
    summary = summarize_answers(sums(), made, 2)
    assert summary["avg@2"] == pytest.approx(0.5) and summary["pass@2"] == pytest.approx(2 / 3)
    assert (summary["truncated"], summary["no_answer"], summary["ungraded"]) == (3, 1, 1)
    assert summary["length"]["mean"] == 3.5 and summary["num_problems"] == 3
    low, high = summary["interval"]
    assert low < 0.5 < high
    text = table([summary])
    assert "@2 50.0" in text and "3/6" in text and "50.0 66.7" in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_samples": 0}, "num_samples is 0; it must be in"),
        ({"temperature": 0.0}, "num_samples is 3 at temperature 0"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0"),
        ({"min_p": 1.5}, r"min_p is 1.5; it must be in \[0, 1\]"),
        ({"top_p": 0.0}, r"top_p is 0.0; it must be in \[1e-06, 1\]"),
        ({"slots": -3}, "slots is -3; it must be in"),
        ({"max_completion_length": -1}, "max_completion_length is -1; it must be in"),
        ({"num_problems": 0}, "num_problems is 0; it must be in"),
        ({"time_limit": 0.0}, "time_limit is 0.0; it must be in"),
        ({"num_workers": 0}, "num_workers is 0; it must be in"),
        ({"slots": 4}, "slots is 4; make it a multiple of num_samples = 3"),
        ({"template": "no problem"}, "does not contain {problem}"),
    ],
)
def test_invalid_settings_are_refused(actor, data, tmp_path, changes, sentence):
    wrong = dataclasses.replace(SETTINGS, **changes)
    with pytest.raises(ConfigError, match=sentence):
        evaluate_benchmark(actor, sums(), str(tmp_path), data_dir=data, settings=wrong)
    assert list(tmp_path.iterdir()) == []  # a corrected command is not another evaluation


def test_a_wrong_grader_is_refused_before_anything_is_written(actor, data, tmp_path):
    with pytest.raises(ConfigError, match='the grader is \'exat\'; give "math", "exact",'):
        evaluate_benchmark(actor, sums("exat"), str(tmp_path), data_dir=data, settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_the_prompt_comes_from_the_settings_then_the_run_then_the_benchmark(actor):
    benchmark = sums()
    plain = BenchmarkSettings()
    assert choose_prompt(actor, benchmark, plain) == benchmark.prompt
    trained = dataclasses.replace(actor, of_run=True)
    assert choose_prompt(trained, benchmark, plain) == actor.config.prompt
    chosen = choose_prompt(trained, benchmark, SETTINGS)
    assert chosen.template == "{problem}=" and chosen.system_prompt == ""


def test_the_error_for_a_model_without_a_chat_template_names_the_flag(actor):
    class Plain:
        chat_template = None

    with pytest.raises(ConfigError, match="no chat template; set --template"):
        choose_prompt(dataclasses.replace(actor, tokenizer=Plain()), sums(), BenchmarkSettings())


def test_greedy_answers_equal_those_of_generate(actor, data, tmp_path):
    greedy = dataclasses.replace(SETTINGS, num_samples=1, temperature=0.0, top_p=1.0)
    evaluate_benchmark(actor, sums(), str(tmp_path), data_dir=data, settings=greedy)
    prompt = choose_prompt(actor, sums(), greedy)
    problems = [r.problem for r in load_problems(sums(), data)]
    texts = actor.generate(problems, max_completion_length=6, temperature=0.0, prompt=prompt)
    assert [a["completion"] for a in read(tmp_path)] == [text for (text,) in texts]
    assert np.all([a["length"] > 0 for a in read(tmp_path)])
