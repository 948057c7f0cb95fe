"""Records {problem, answer}: from files, the hub, procedural tasks, or a user's function.

Every source becomes an iterator of rows (location, fields). One function turns rows into records,
so that field names, answer patterns and bad rows are handled in the same way for every source.
"""

import difflib
import importlib
import itertools
import json
import math
import numbers
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from etils import epath

from asyppo_jax.config import ConfigError, DataConfig, UserError
from asyppo_jax.config.errors import did_you_mean
from asyppo_jax.config.functions import named_function
from asyppo_jax.config.ranges import check_fields
from asyppo_jax.tasks.rewards.reasoning_tasks import NO_ANSWER

Rows = Iterator[tuple[str, Any]]  # (location for error messages, fields)

_SECTIONS = "config.train_data or config.eval_data"
_FIX = f"set problem_field and answer_field in {_SECTIONS}"


class DataError(UserError, ValueError):
    """Data that cannot be used; the message says where and how to fix it."""


@dataclass(frozen=True)
class Record:
    """A problem and its reference answer; "" if the source has none."""

    problem: str
    answer: str
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)  # all of the source


def load_records(data: DataConfig, *, spellings: bool = False, fix: str = _FIX) -> list[Record]:
    r"""The records that `data` describes, in the order of the source.

    Sources: "jsonl" and "parquet" are files. "hub" is a data set name or "name:subset"
    ("openai/gsm8k:main"). "reasoning_gym" is a task that generates `num_records` records from
    `seed`. "function" is "module:function", called as f(split, num_records, seed); it returns an
    iterable of dicts.

    Answers become text: 27.0 is "27", null is "", a list is its first element (data sets use lists
    for several spellings of one answer). With `spellings` each answer is a JSON list of all its
    spellings, for graders that accept any of them. If `answer_pattern` is set, the answer is
    group 1 of its first match, or "" if it does not match.

    reasoning_gym generates item i of seed s from s + i. Two data sets therefore share problems if
    their seeds differ by less than their size: keep the seeds of training and evaluation far apart.

    `fix` ends the message about a field that is missing or cannot be read.

    Raises:
      ConfigError: a setting is invalid.
      DataError: the data are missing, broken or empty, or a package is not installed.
    """
    if not data.path:
        raise ConfigError(f"path is empty; set it in {_SECTIONS}")
    check_fields(data)
    pattern = _compile(data.answer_pattern)
    fields = (data.problem_field, data.answer_field)
    if data.source == "reasoning_gym":
        fields = ("question", "answer")
    records, last_answer = [], ""
    for where, row in itertools.islice(_rows(data), data.num_records):
        problem = _field(row, fields[0], where, fix)
        if spellings:
            records.append(Record(problem, _spellings(row, fields[1], where, fix), row))
            continue
        answer = _field(row, fields[1], where, fix)
        last_answer = answer
        if pattern is not None:
            match = pattern.search(answer)
            answer = (match.group(1) or "") if match else ""
        records.append(Record(problem, answer.strip(), row))
    if not records:
        raise DataError(f"{data.source} data set {data.path} has no records; set another path")
    if pattern is not None and not any(record.answer for record in records):
        raise DataError(
            f"answer_pattern {data.answer_pattern!r} matches none of the {len(records)} answers of "
            f"{data.path}, such as {last_answer[-60:]!r}; change it in {_SECTIONS}"
        )
    return records


def _compile(answer_pattern: str) -> re.Pattern[str] | None:
    if not answer_pattern:
        return None
    try:
        pattern = re.compile(answer_pattern)
    except re.error as error:
        raise ConfigError(
            f"answer_pattern {answer_pattern!r} is not a regular expression ({error}); correct it "
            f"in {_SECTIONS}"
        ) from error
    if not pattern.groups:
        raise ConfigError(
            f"answer_pattern {answer_pattern!r} has no group; put the answer in parentheses"
        )
    return pattern


def _field(row: Any, name: str, where: str, fix: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with fields, got a {type(row).__name__}")
    if name not in row:
        raise DataError(
            f"{where}: there is no field {name!r} among {', '.join(map(repr, row)) or 'none'}; "
            f"{fix}"
        )
    return _to_text(row[name], name, where, fix)


def _spellings(row: Any, name: str, where: str, fix: str) -> str:
    first = _field(row, name, where, fix)  # raises if the field is missing or cannot be read
    value = row[name]
    if isinstance(value, list):
        spellings = [_to_text(spelling, name, where, fix) for spelling in value]
    else:
        spellings = [first]
    return json.dumps([*dict.fromkeys(spelling.strip() for spelling in spellings)])


def _to_text(value: Any, name: str, where: str, fix: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | numbers.Integral):
        return str(value)
    if isinstance(value, numbers.Real):
        return _number_to_text(float(value))
    if isinstance(value, list | tuple):
        return _to_text(value[0], name, where, fix) if value else ""
    raise DataError(
        f"{where}: field {name!r} holds a {type(value).__name__}, neither text nor a number; "
        f"{fix}, or fix that row"
    )


def _number_to_text(value: float) -> str:
    """Digits, or 2.5e-07 for very small and very large numbers, which the graders can read."""
    if math.isnan(value):  # tables store a missing number as NaN
        return ""
    # Above 2**53 a float is not an exact integer, so its digits would be misleading.
    return str(int(value)) if value.is_integer() and abs(value) <= 2**53 else repr(value)


def _rows(data: DataConfig) -> Rows:
    match data.source:
        case "jsonl":
            return _jsonl_rows(_existing_file(data.path))
        case "parquet":
            return _parquet_rows(_existing_file(data.path))
        case "hub":
            return _hub_rows(data)
        case "reasoning_gym":
            return _reasoning_gym_rows(data)
        case "function":
            return _function_rows(data)


def _existing_file(path: str) -> epath.Path:
    file = epath.Path(path)
    if not file.is_file():
        state = "is a directory" if file.is_dir() else "does not exist"
        fix = f"set path in {_SECTIONS} to a file"
        raise DataError(f"data file {path} {state}; {nearest_file(path, fix)}")
    return file


def nearest_file(path: str, otherwise: str) -> str:
    """`did_you_mean` for the names of the files in the folder of a path that does not exist."""
    file = epath.Path(path)
    entries = file.parent.iterdir() if file.parent.is_dir() else ()
    return did_you_mean(file.name, [p.name for p in entries if p.is_file()], otherwise)


def _jsonl_rows(path: epath.Path) -> Rows:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                yield where, json.loads(line.decode("utf-8-sig"))
            except ValueError as error:  # a JSONDecodeError or a UnicodeDecodeError
                raise DataError(f"{where}: not JSON ({error}); fix or remove that line") from error


def _parquet_rows(path: epath.Path) -> Rows:
    _import_package("pyarrow", "parquet data", "pip install -e '.[parquet]'")
    import pyarrow
    import pyarrow.parquet

    with path.open("rb") as source:
        try:
            file = pyarrow.parquet.ParquetFile(source)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a parquet file ({error}); write it again") from error
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield f"{path}, row {number}", row


def _hub_rows(data: DataConfig) -> Rows:
    datasets = _import_package("datasets", "data from the hub", "pip install datasets")
    name, _, subset = data.path.partition(":")
    try:
        rows = datasets.load_dataset(name, subset or None, split=data.split)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the hub data set {data.path}, split {data.split}, cannot be loaded ({error}); "
            f"set path and split in {_SECTIONS}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{data.path}, row {number}", row


def _reasoning_gym_rows(data: DataConfig) -> Rows:
    _import_package("reasoning_gym", "the source reasoning_gym", "pip install -e '.[tasks]'")
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if data.num_records is None:
        raise ConfigError(
            f"num_records is None; set in {_SECTIONS} how many {data.path} to generate"
        )
    if data.path not in DATASETS:
        close = difflib.get_close_matches(data.path, DATASETS, n=3, cutoff=0.4) or sorted(DATASETS)
        raise ConfigError(
            f"reasoning_gym has no task {data.path!r}; set path in {_SECTIONS} to one of its "
            f"{len(DATASETS)} tasks, such as {', '.join(close[:3])}"
        )
    if data.path in NO_ANSWER:
        raise ConfigError(
            f"the reasoning_gym task {data.path!r} has no reference answers; set path in "
            f"{_SECTIONS} to another task (without answers are {', '.join(NO_ANSWER)})"
        )
    try:
        rows = reasoning_gym.create_dataset(data.path, size=data.num_records, seed=data.seed)
    except (AssertionError, TypeError, ValueError) as error:  # the task rejects its settings
        raise ConfigError(
            f"reasoning_gym cannot generate the task {data.path!r} ({error}); set another path in "
            f"{_SECTIONS}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{data.path}, item {number}", row


def _function_rows(data: DataConfig) -> Rows:
    function = named_function(data.path, f"path in {_SECTIONS}")
    rows = function(data.split, data.num_records, data.seed)
    for number, row in enumerate(rows, start=1):
        yield f"{data.path}, item {number}", row


def _import_package(module: str, user: str, command: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{user} needs the package {module} ({error}); run `{command}`") from error
