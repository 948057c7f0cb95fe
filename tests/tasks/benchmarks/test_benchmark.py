"""The seven benchmarks: names, prompts, graders, and the error for missing data."""

import json
import os
from pathlib import Path

import pytest

from asyppo_jax.config import ConfigError, DataConfig, RewardConfig
from asyppo_jax.tasks.benchmarks import (
    BENCHMARKS,
    Benchmark,
    data_directory,
    find_benchmark,
    held_out_benchmark,
    load_problems,
    own_benchmark,
)
from asyppo_jax.tasks.records import DataError
from asyppo_jax.tasks.rewards import RewardPool, resolve_reward
from experiments.command_line import read_config_file

NAMES = [benchmark.name for benchmark in BENCHMARKS]


def test_the_six_benchmarks_of_the_paper_and_gsm8k_exist():
    paper = {"aime24", "aime25", "math500", "olympiadbench", "minerva_math", "amc23"}
    assert set(NAMES) == paper | {"gsm8k"} and len(NAMES) == 7
    for name in NAMES:
        assert find_benchmark(name).name == name


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"no benchmark 'math'; choose among aime24, .*gsm8k"):
        find_benchmark("math")


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=NAMES)
def test_each_prompt_asks_for_a_box_and_each_grader_can_be_loaded(benchmark):
    assert r"\boxed{}" in benchmark.prompt.system_prompt and benchmark.prompt.template == "chat"
    assert callable(resolve_reward(benchmark.grader))
    assert benchmark.local.source == "jsonl"
    assert benchmark.hub is not None and benchmark.hub.source == "hub"


def test_the_error_for_missing_data_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"AMC 2023 is not in .* \(as amc23\.jsonl\); put it there"):
        load_problems(find_benchmark("amc23"), str(tmp_path))


def test_the_data_directory_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ASYPPO_DATA", "elsewhere")
    assert data_directory() == "elsewhere"
    monkeypatch.delenv("ASYPPO_DATA")
    assert data_directory() == "data"


def test_spellings_are_kept_as_a_list_if_the_benchmark_asks_for_it(tmp_path):
    rows = [{"problem": "a", "answer": ["1\n", "1.0"]}, {"problem": "b", "answer": "2"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(source="jsonl", path="x.jsonl")
    benchmark = Benchmark("x", "X", 2, data, DataConfig(), spellings=True)
    assert [r.answer for r in load_problems(benchmark, str(tmp_path))] == ['["1", "1.0"]', '["2"]']


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=NAMES)
def test_the_grader_accepts_every_reference_of_the_real_files(benchmark):
    if not (Path(data_directory()) / benchmark.local.path).is_file():
        pytest.skip(
            f"{benchmark.local.path} is not in ASYPPO_DATA = {os.environ.get('ASYPPO_DATA')}"
        )
    records = load_problems(benchmark, data_directory())
    assert len(records) == benchmark.num_problems
    answers = [r.answer for r in records]
    first_spellings = [json.loads(a)[0] if benchmark.spellings else a for a in answers]
    completions = [rf"So it is \boxed{{{text}}}." for text in first_spellings]
    with RewardPool(RewardConfig(benchmark.grader, time_limit=30)) as pool:
        scores = pool.score([r.problem for r in records], completions, answers)
    wrong = [a for a, score in zip(answers, scores.rewards, strict=True) if score != 1]
    assert not wrong


def test_a_file_of_ones_own_is_a_benchmark(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"q": "1+1", "a": "so 2"}\n')
    fields = {"problem_field": "q", "answer_field": "a"}
    benchmark = own_benchmark(str(file), **fields, answer_pattern=r"so (.)", grader="exact")
    assert (benchmark.name, benchmark.grader) == ("mine", "exact")
    (record,) = load_problems(benchmark, "nowhere")
    assert (record.problem, record.answer, record.columns) == (
        "1+1",
        "2",
        {"q": "1+1", "a": "so 2"},
    )


def test_other_fields_than_those_named_are_an_error_that_names_the_flags(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"q": "1+1", "a": "2"}\n')
    benchmark = own_benchmark(str(file), problem_field="p", answer_field="a", grader="exact")
    message = r"line 1: there is no field 'p' among 'q', 'a'; name .* problem_field and"
    with pytest.raises(DataError, match=message):
        load_problems(benchmark, "nowhere")
    (tmp_path / "amc23.jsonl").write_text('{"q": "1+1", "a": "2"}\n')
    message = r"no field 'question' among 'q', 'a'; AMC 2023 has the fields 'question' and 'answer'"
    with pytest.raises(DataError, match=message):
        load_problems(find_benchmark("amc23"), str(tmp_path))


def test_problems_without_a_reference_are_refused_where_the_grader_needs_one(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "1+2", "answer": null}\n')
    with pytest.raises(DataError, match=r"1 of 2 problems of mine .*, the first is number 1"):
        load_problems(own_benchmark(str(file)), "nowhere")
    assert len(load_problems(own_benchmark(str(file), grader="my:own"), "nowhere")) == 2


def test_a_file_with_another_suffix_is_refused():
    with pytest.raises(ConfigError, match=r"x\.csv is no benchmark; give a file that ends in"):
        own_benchmark("x.csv", problem_field="p", answer_field="a", grader="exact")


def test_the_held_out_problems_of_a_run_have_its_prompt_and_rewards():
    config = read_config_file("configs/tiny_test.py")
    benchmark = held_out_benchmark(config)
    assert len(load_problems(benchmark, "nowhere")) == benchmark.num_problems == 16
    assert (benchmark.prompt, benchmark.grader) == (config.prompt, "exact")
    assert benchmark.max_completion_length == 44
