"""Records: the same from every source; bad data gives a one-sentence error."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from asyppo_jax.config import ConfigError, DataConfig
from asyppo_jax.tasks.records import DataError, Record, load_records

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared_file(name: str) -> str:
    path = SHARED_DATA / name
    if not path.is_file():
        pytest.skip(f"{name} is not here: the public problems are not part of the project")
    return str(path)


def write_jsonl(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27.0, "27"),
        (-3.5, "-3.5"),
        (12, "12"),
        (1e300, "1e+300"),
        (" 7\n", "7"),
        (["9.6\n"], "9.6"),
        ([27.0], "27"),
        ([], ""),
        (None, ""),
        (float("nan"), ""),
        (True, "True"),
        (0.00001, "0.00001"),
        (2.5e-07, "0.00000025"),
        (-1.5e-10, "-0.00000000015"),
        (6.02e23, "6.02e+23"),
        (1e16, "1e+16"),
    ],
)
def test_answers_of_every_type_become_text(tmp_path, value, text):
    path = write_jsonl(tmp_path / "data.jsonl", [{"problem": "p", "answer": value}])
    assert load_records(DataConfig(path=path)) == [Record("p", text)]


def test_field_names_can_be_set_and_group_1_of_the_pattern_is_the_answer(tmp_path):
    rows = [{"q": "1+1?", "a": "add them\n#### 2 "}, {"q": "1+2?", "a": "no mark: 3"}]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = DataConfig(path=path, problem_field="q", answer_field="a", answer_pattern=r"####\s*(.+)")
    assert load_records(data) == [Record("1+1?", "2"), Record("1+2?", "")]


def test_a_name_with_dots_is_a_field_in_a_field(tmp_path):
    rows = [{"prompt": [{"content": "p"}], "reward": {"truth": 3}, "a.b": "q"}]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = DataConfig(path=path, problem_field="a.b", answer_field="reward.truth")
    assert load_records(data) == [Record("q", "3")]
    with pytest.raises(DataError, match=r"line 1: there is no field 'reward\.true' among '"):
        load_records(DataConfig(path=path, problem_field="a.b", answer_field="reward.true"))


def test_records_that_lack_a_field_which_others_have_are_named(tmp_path):
    rows = [{"q": "1", "r": {"a": "2"}}, {"q": "1"}, {"q": "1", "r": {}}, {"r": {"a": "2"}}]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    data = DataConfig(path=path, problem_field="q", answer_field="r.a")
    with pytest.raises(DataError, match=r"'q' is missing in 1 of 4 records: .*, line 4; fill"):
        load_records(data)
    write_jsonl(tmp_path / "data.jsonl", rows[:3])
    with pytest.raises(
        DataError, match=r"'r\.a' is missing in 2 of 3 records: .*, line 2, .*, line 3;"
    ):
        load_records(data)


def test_a_list_of_answers_is_taken_where_spellings_are_asked_for(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", [{"problem": "p", "answer": ["2", "3", " 2"]}])
    assert load_records(DataConfig(path=path), spellings=True)[0].answer == '["2", "3"]'
    with pytest.raises(DataError, match="holds a list of 3 values"):
        load_records(DataConfig(path=path))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(split, num_records):\n    return []", r"before item 1 \(TypeError: .*\); it is"),
        ("(*a):\n    yield {'problem': 1, 'answer': 10**5000}", "item 1: field 'answer' holds an"),
        ("(*a):\n    yield {'problem': 1, 'answer': 1}\n    1 / 0", r"item 2 \(ZeroDivisionError"),
        ("(*a):\n    return 3", "TypeError: 'int' object is not iterable"),
        ("(*a):\n    yield 3", "item 1: expected an object with fields, got a int"),
    ],
)
def test_a_function_that_fails_is_named(tmp_path, monkeypatch, body, reason):
    (tmp_path / "failing_task.py").write_text(f"def make{body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "failing_task", raising=False)
    with pytest.raises(DataError, match=reason) as caught:
        load_records(DataConfig(source="function", path="failing_task:make"))
    assert "\n" not in str(caught.value)


def test_num_records_takes_the_first_records(tmp_path):
    rows = [{"problem": str(i), "answer": i} for i in range(5)]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    assert [r.problem for r in load_records(DataConfig(path=path, num_records=3))] == list("012")


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"problem": "p", "answer": 1}\n\n  \n')
    assert load_records(DataConfig(path=str(path))) == [Record("p", "1")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"problem": "torn', r"not JSON \(.*\); fix or remove that line"),
        (b'{"problem": "\xff", "answer": 1}', r"not JSON \(.*utf-8.*\); fix or remove that line"),
        (b"[1, 2]", "expected an object with fields, got a list"),
        (
            b'{"problem": "p", "answer": {"x": 1, "y": 2}}',
            r"field 'answer' holds a dict \(with the fields 'x', 'y': name one as answer.FIELD",
        ),
        (
            b'{"problem": "p", "answer": ["2", 3.0, "4"]}',
            "field 'answer' holds a list of 3 values; write one text, such as '2, 3.0",
        ),
        (b'{"problem": "a \\ud800 b", "answer": 1}', "field 'problem' has half of a surrogate"),
        (b'{"problem": "p", "answer": "\\udfff"}', "field 'answer' has half of a surrogate pair"),
        (b'{"problem": "p", "answer": 1e999}', "field 'answer' holds inf, which is no number"),
        (b'{"problem": "p", "answer": ' + b"1" * 5000 + b"}", r"not JSON \(Exceeds the limit"),
        (b"[" * 100_000, "not JSON .*recursion"),
    ],
)
def test_the_error_for_a_broken_line_has_its_number(tmp_path, line, reason):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"problem": "p", "answer": 1}\n' * 16 + line + b"\n")
    with pytest.raises(DataError, match=re.escape(f"{path}, line 17: ") + reason) as caught:
        load_records(DataConfig(path=str(path)))
    assert "\n" not in str(caught.value)


def test_parquet_and_jsonl_give_the_same_records(tmp_path):
    pytest.importorskip("pyarrow", reason="parquet files need the package pyarrow")
    import pyarrow
    import pyarrow.parquet

    rows = [{"problem": f"p{i}", "answer": answer} for i, answer in enumerate([1.0, None, 2.5])]
    jsonl = write_jsonl(tmp_path / "data.jsonl", rows)
    parquet = str(tmp_path / "data.parquet")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet, row_group_size=2)
    records = load_records(DataConfig(source="parquet", path=parquet))
    assert records == load_records(DataConfig(path=jsonl))
    assert [r.answer for r in records] == ["1", "", "2.5"]
    with pytest.raises(DataError, match="row 1: there is no field 'question' among 'problem'"):
        load_records(DataConfig(source="parquet", path=parquet, problem_field="question"))


def test_a_broken_parquet_file_gives_a_one_sentence_error(tmp_path):
    pytest.importorskip("pyarrow", reason="parquet files need the package pyarrow")
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1 broken")
    with pytest.raises(DataError, match="is not a parquet file"):
        load_records(DataConfig(source="parquet", path=str(path)))


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_a_missing_file_or_a_directory_gives_a_one_sentence_error(tmp_path, source):
    (tmp_path / "problems.jsonl").write_text("{}")
    typo = DataConfig(source="jsonl", path=str(tmp_path / "problem.jsonl"))
    with pytest.raises(DataError, match=r"problem.jsonl does not exist; did you mean problems.js"):
        load_records(typo)
    with pytest.raises(DataError, match=r"data file .*none does not exist; set path in config"):
        load_records(DataConfig(source=source, path=str(tmp_path / "none")))
    with pytest.raises(DataError, match="is a directory; set path in config"):
        load_records(DataConfig(source=source, path=str(tmp_path)))


def test_an_empty_data_set_is_refused(tmp_path):
    (tmp_path / "data.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no records"):
        load_records(DataConfig(path=str(tmp_path / "data.jsonl")))


@pytest.mark.parametrize(
    ("pattern", "error", "reason"),
    [
        ("(", ConfigError, "is not a regular expression"),
        ("####", ConfigError, "has no group; put the answer in parentheses"),
        ("@@(.+)", DataError, "matches none of the 1 answers of .*, such as '#### 2'"),
    ],
)
def test_an_invalid_answer_pattern_is_refused(tmp_path, pattern, error, reason):
    path = write_jsonl(tmp_path / "data.jsonl", [{"problem": "p", "answer": "#### 2"}])
    with pytest.raises(error, match=reason):
        load_records(DataConfig(path=path, answer_pattern=pattern))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (DataConfig(), "path is empty"),
        (DataConfig(path="x", num_records=0), "num_records is 0"),
        (
            DataConfig(source="function", path="no_function"),
            r"path in config\.train_data or .* is 'no_function'; give \"mod",
        ),
        (DataConfig(source="function", path="no_such_module:f"), "cannot be imported"),
        (
            DataConfig(source="function", path="json:no_such"),
            "module 'json' has no function 'no_such'",
        ),
    ],
)
def test_invalid_settings_are_refused(data, reason):
    with pytest.raises(ConfigError, match=reason):
        load_records(data)


def test_a_function_is_called_with_split_num_records_and_seed(tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text(
        "def make(split, num_records, seed):\n"
        "    return ({'problem': f'{split} {i}', 'answer': seed * i} for i in range(100))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = DataConfig(source="function", path="my_task:make", split="test", num_records=2, seed=7)
    assert load_records(data) == [Record("test 0", "0"), Record("test 1", "7")]


def test_reasoning_gym_records_are_the_items_of_the_task():
    reasoning_gym = pytest.importorskip("reasoning_gym", reason="the package is not installed")
    data = DataConfig(source="reasoning_gym", path="chain_sum", num_records=4, seed=3)
    items = reasoning_gym.create_dataset("chain_sum", size=4, seed=3)
    assert load_records(data) == [Record(item["question"], item["answer"]) for item in items]
    with pytest.raises(ConfigError, match=r"no task 'chain_sums'; .* such as chain_sum"):
        load_records(DataConfig(source="reasoning_gym", path="chain_sums", num_records=4))
    with pytest.raises(ConfigError, match="num_records is None; set in"):
        load_records(DataConfig(source="reasoning_gym", path="chain_sum"))
    with pytest.raises(ConfigError, match="'composite' has no reference answers"):
        load_records(DataConfig(source="reasoning_gym", path="composite", num_records=4))


def test_a_hub_name_is_split_from_its_subset(monkeypatch):
    datasets = ModuleType("datasets")  # replaces the hub, which tests do not access

    def load_dataset(name, subset, split):
        if name != "openai/gsm8k":
            raise FileNotFoundError(f"{name} is not on the hub")
        return [{"question": f"{subset} {split}", "answer": "#### 5"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    data = DataConfig(
        source="hub",
        path="openai/gsm8k:main",
        split="test",
        problem_field="question",
        answer_pattern=r"#### (.+)",
    )
    assert load_records(data) == [Record("main test", "5")]
    with pytest.raises(DataError, match="hub data set nobody/none, split train, cannot be loaded"):
        load_records(DataConfig(source="hub", path="nobody/none"))


@pytest.mark.parametrize(("builder", "is_refused"), [("json", True), ("parquet", False)])
def test_a_date_that_the_hubs_package_rewrote_is_refused(builder, is_refused, monkeypatch):
    datasets = ModuleType("datasets")

    class Rows(list):
        info = SimpleNamespace(builder_name=builder)

    rows = Rows([{"problem": "When?", "answer": "2024-05-17 00:00:00"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    data = DataConfig(source="hub", path="nobody/dates")
    if is_refused:
        with pytest.raises(DataError, match=r"row 1: field 'answer' is '2024-.* source to 'jsonl'"):
            load_records(data)
    else:
        assert load_records(data) == [Record("When?", "2024-05-17 00:00:00")]


@pytest.mark.parametrize(
    ("source", "package", "command"),
    [
        ("hub", "datasets", "pip install datasets"),
        ("parquet", "pyarrow", "pip install -e '.[parquet]'"),
        ("reasoning_gym", "reasoning_gym", "pip install -e '.[tasks]'"),
    ],
)
def test_the_error_for_a_missing_package_has_its_install_command(
    tmp_path, monkeypatch, source, package, command
):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "data").touch()
    message = f"needs the package {package} .*run `{re.escape(command)}`"
    with pytest.raises(DataError, match=message):
        load_records(DataConfig(source=source, path=str(tmp_path / "data"), num_records=1))


@pytest.mark.parametrize(
    ("name", "settings", "count", "first"),
    [
        ("deepmath_5k", {}, 4994, "1"),
        ("math500", {}, 500, "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("aime25", {}, 30, "70"),
        ("amc23", {"problem_field": "question"}, 40, "27"),
        (
            "olympiadbench",
            {"problem_field": "question", "answer_field": "final_answer"},
            675,
            "2",
        ),
        (
            "gsm8k_test",
            {"problem_field": "question", "answer_pattern": r"####\s*(.+)"},
            1319,
            "18",
        ),
    ],
)
def test_every_public_record_has_a_problem_and_an_answer(name, settings, count, first):
    records = load_records(DataConfig(path=shared_file(f"{name}.jsonl"), **settings))
    assert len(records) == count
    assert records[0].answer == first
    assert all(record.problem.strip() and record.answer for record in records)


def test_gsm8k_answers_are_numbers_and_amc_answers_are_integers():
    gsm8k = DataConfig(
        path=shared_file("gsm8k_test.jsonl"),
        problem_field="question",
        answer_pattern=r"####\s*(.+)",
    )
    assert all(re.fullmatch(r"-?[\d,.]+", record.answer) for record in load_records(gsm8k))
    amc = DataConfig(path=shared_file("amc23.jsonl"))
    assert all(re.fullmatch(r"-?\d+", record.answer) for record in load_records(amc))


def test_public_records_without_an_answer_are_kept_with_an_empty_one():
    records = load_records(DataConfig(path=shared_file("math_train.jsonl")))
    assert (len(records), sum(not record.answer for record in records)) == (7474, 4)
