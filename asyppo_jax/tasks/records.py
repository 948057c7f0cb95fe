"""Records {problem, answer}: from files, the hub, procedural tasks, or a user's function.

Every source becomes an iterator of rows (location, fields). One function turns rows into records,
so that field names, answer patterns and bad rows are handled in the same way for every source.
"""

import difflib
import hashlib
import itertools
import json
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from asyppo_jax.config import ConfigError, DataConfig, UserError
from asyppo_jax.config.functions import named_function
from asyppo_jax.config.ranges import check_fields
from asyppo_jax.tasks.data_files import (
    SECTIONS,
    DataError,
    Rows,
    existing_file,
    import_package,
    jsonl_rows,
    parquet_rows,
)
from asyppo_jax.tasks.rewards.reasoning_tasks import NO_ANSWER

_MISSING = object()  # a field may hold None
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")
_FIX = f"set problem_field and answer_field in {SECTIONS}"


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

    Answers become text: 27.0 is "27", null is "", a list of one element is that element. Longer
    lists are refused, because they may be several values or several spellings of one. With
    `spellings` each answer is a JSON list of all its spellings, for graders that accept any of
    them. If `answer_pattern` is set, the answer is group 1 of its first match, or "" if it does not
    match. A field name with dots, such as "reward_model.ground_truth", is a field in a field.

    reasoning_gym generates item i of seed s from s + i. Two data sets therefore share problems if
    their seeds differ by less than their size: keep the seeds of training and evaluation far apart.

    `fix` ends the message about a field that is missing or cannot be read.

    Raises:
      ConfigError: a setting is invalid.
      DataError: the data are missing, broken or empty, or a package is not installed.
    """
    if not data.path:
        raise ConfigError(f"path is empty; set it in {SECTIONS}")
    check_fields(data)
    pattern = _compile(data.answer_pattern)
    fields = (data.problem_field, data.answer_field)
    if data.source == "reasoning_gym":
        fields = ("question", "answer")
    records, last_answer = [], ""
    rows = list(itertools.islice(_rows(data), data.num_records))
    _check_no_row_lacks(fields, rows)
    for where, row in rows:
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
            f"{data.path}, such as {last_answer[-60:]!r}; change it in {SECTIONS}"
        )
    return records


def digest(records: Sequence[Record]) -> str:
    """A hash of the problems and their answers, in order; other columns are left out."""
    texts = json.dumps([[record.problem, record.answer] for record in records])
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def _compile(answer_pattern: str) -> re.Pattern[str] | None:
    if not answer_pattern:
        return None
    try:
        pattern = re.compile(answer_pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"answer_pattern {answer_pattern!r} is not a regular expression ({error}); correct it "
            f"in {SECTIONS}"
        ) from error
    if not pattern.groups:
        raise ConfigError(
            f"answer_pattern {answer_pattern!r} has no group; put the answer in parentheses"
        )
    return pattern


def _check_no_row_lacks(fields: Sequence[str], rows: Sequence[tuple[str, Any]]) -> None:
    """Raises `DataError` if some rows lack a field that others have."""
    for name in fields:
        lacking = [
            where
            for where, row in rows
            if isinstance(row, Mapping) and _find(row, name) is _MISSING
        ]
        if 0 < len(lacking) < len(rows):
            more = ", ..." if len(lacking) > 3 else ""
            raise DataError(
                f"the field {name!r} is missing in {len(lacking)} of {len(rows)} records: "
                f"{', '.join(lacking[:3])}{more}; fill it in, or remove those records"
            )


def _field(row: Any, name: str, where: str, fix: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with fields, got a {type(row).__name__}")
    return _to_text(_value(row, name, where, fix), name, where, fix)


def _value(row: Mapping[str, Any], name: str, where: str, fix: str) -> Any:
    value = _find(row, name)
    if value is _MISSING:
        raise DataError(
            f"{where}: there is no field {name!r} among {', '.join(map(repr, row)) or 'none'}; "
            f"{fix}"
        )
    return value


def _find(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of a field in a field ("outer.inner"); `_MISSING` if it is none."""
    value: Any = row
    for part in [name] if name in row else name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _spellings(row: Any, name: str, where: str, fix: str) -> str:
    value = _value(row, name, where, fix) if isinstance(row, Mapping) else None
    if isinstance(value, list):
        spellings = [_to_text(spelling, name, where, fix) for spelling in value]
    else:
        spellings = [_field(row, name, where, fix)]
    return json.dumps([*dict.fromkeys(spelling.strip() for spelling in spellings)])


def _to_text(value: Any, name: str, where: str, fix: str) -> str:
    at = f"{where}: field {name!r}"
    if isinstance(value, str):
        return _checked_text(value, at)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, numbers.Integral):
        return _integer_to_text(int(value), at)
    if isinstance(value, numbers.Real):
        return _number_to_text(float(value), at)
    if isinstance(value, list | tuple) and len(value) < 2:
        return _to_text(value[0], name, where, fix) if value else ""
    if isinstance(value, list | tuple):
        raise DataError(
            f"{at} holds a list of {len(value)} values; write one text, such as {_joined(value)!r} "
            "where an answer must give all of them"
        )
    inner = ", ".join(map(repr, value)) if isinstance(value, Mapping) else ""
    hint = f" (with the fields {inner}: name one as {name}.FIELD)" if inner else ""
    raise DataError(
        f"{at} holds a {type(value).__name__}{hint}, neither text nor a number; {fix}, or fix that "
        "row"
    )


def _joined(values: Sequence[Any]) -> str:
    return ", ".join(str(value)[:20] for value in values[:3])


def _checked_text(text: str, at: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{at} has half of a surrogate pair, {text[error.start]!r}, which is no character; "
            "fix or remove that row"
        ) from error
    return text


def _integer_to_text(value: int, at: str) -> str:
    try:
        return str(value)
    except ValueError as error:  # Python writes integers of up to 4,300 digits
        raise DataError(f"{at} holds an integer of too many digits; write it as a text") from error


def _number_to_text(value: float, at: str) -> str:
    """Digits, or 2.5e+17 for very small and very large numbers, which the graders can read."""
    if math.isnan(value):  # tables store a missing number as NaN
        return ""
    if math.isinf(value):
        raise DataError(f"{at} holds {value}, which is no number; write the answer as a text")
    # Above 2**53 a float is not an exact integer, so its digits would be misleading.
    if value.is_integer() and abs(value) <= 2**53:
        return str(int(value))
    return f"{Decimal(repr(value)):f}" if 1e-12 < abs(value) < 1 else repr(value)


def _rows(data: DataConfig) -> Rows:
    match data.source:
        case "jsonl":
            return jsonl_rows(existing_file(data.path))
        case "parquet":
            return parquet_rows(existing_file(data.path))
        case "hub":
            return _hub_rows(data)
        case "reasoning_gym":
            return _reasoning_gym_rows(data)
        case "function":
            return _function_rows(data)


def _hub_rows(data: DataConfig) -> Rows:
    datasets = import_package("datasets", "data from the hub", "pip install datasets")
    name, _, subset = data.path.partition(":")
    try:
        rows = datasets.load_dataset(name, subset or None, split=data.split)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the hub data set {data.path}, split {data.split}, cannot be loaded ({error}); "
            f"set path and split in {SECTIONS}"
        ) from error
    from_json = getattr(getattr(rows, "info", None), "builder_name", None) == "json"
    for number, row in enumerate(rows, start=1):
        where = f"{data.path}, row {number}"
        if from_json:
            _check_no_rewritten_date(row, where)
        yield where, row


def _check_no_rewritten_date(row: Mapping[str, Any], where: str) -> None:
    """The package datasets reads a date in a JSON file as a time, and writes it as another text."""
    for name, value in row.items():
        if isinstance(value, str) and _TIME.fullmatch(value):
            raise DataError(
                f"{where}: field {name!r} is {value!r}, which the package datasets makes of a date "
                "such as 2024-05-17 in a JSON file; download the file and set source to 'jsonl' "
                f"and path to it in {SECTIONS}"
            )


def _reasoning_gym_rows(data: DataConfig) -> Rows:
    import_package("reasoning_gym", "the source reasoning_gym", "pip install -e '.[tasks]'")
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if data.num_records is None:
        raise ConfigError(
            f"num_records is None; set in {SECTIONS} how many {data.path} to generate"
        )
    if data.path not in DATASETS:
        close = difflib.get_close_matches(data.path, DATASETS, n=3, cutoff=0.4) or sorted(DATASETS)
        raise ConfigError(
            f"reasoning_gym has no task {data.path!r}; set path in {SECTIONS} to one of its "
            f"{len(DATASETS)} tasks, such as {', '.join(close[:3])}"
        )
    if data.path in NO_ANSWER:
        raise ConfigError(
            f"the reasoning_gym task {data.path!r} has no reference answers; set path in "
            f"{SECTIONS} to another task (without answers are {', '.join(NO_ANSWER)})"
        )
    try:
        rows = reasoning_gym.create_dataset(data.path, size=data.num_records, seed=data.seed)
    except (AssertionError, TypeError, ValueError) as error:  # the task rejects its settings
        raise ConfigError(
            f"reasoning_gym cannot generate the task {data.path!r} ({error}); set another path in "
            f"{SECTIONS}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{data.path}, item {number}", row


def _function_rows(data: DataConfig) -> Rows:
    function = named_function(data.path, f"path in {SECTIONS}")
    number = 0
    try:
        rows = iter(function(data.split, data.num_records, data.seed))
        while (row := next(rows, _END)) is not _END:
            number += 1
            yield f"{data.path}, item {number}", row
    except UserError:
        raise
    except Exception as error:  # whatever a function of the user's raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{data.path} failed before item {number + 1} ({reason}); it is called as f(split, "
            "num_records, seed) and returns an iterable of dicts"
        ) from error


_END = object()
