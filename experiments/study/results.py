"""The files of a study: how each run ended, results.csv, and study.json beside it."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from asyppo_jax.config import Config, ConfigError, UserError, from_dict
from asyppo_jax.config.reading import flatten, may_change
from asyppo_jax.runtime.paths import write_whole
from experiments.study.study import Study, StudyRun, settings_of

RESULTS, SETTINGS, STATUS = "results.csv", "study.json", "status.json"
COLUMNS = ("study", "task", "actor", "method", "seed", "step", "metric", "value")
# What results.csv says of each run beside the metrics of its steps.
DIVERGED = "run/diverged"  # at its last step: 1 if a loss or gradient was not finite, else 0
WARMUP = "run/warmup_steps"  # at step 0: its steps that update critics only


class ResultsError(UserError, ValueError):
    """A results file that cannot be used; the message names the file and the fix."""


class Row(NamedTuple):
    """One line of results.csv; `value` is NaN where the run's value was not finite."""

    study: str
    task: str
    actor: str
    method: str
    seed: int
    step: int
    metric: str
    value: float


class Status(NamedTuple):
    """How a run ended: "finished", "diverged", "failed" (by `message`); else "left"."""

    state: str
    message: str = ""
    seconds: float = 0.0


LEFT = Status("left")


def read_status(run: StudyRun, workdir: Path) -> Status:
    """How a run ended, if its settings were those of today; a failed one is to be tried again.

    Raises:
        ConfigError: the directory has a run of other settings; the first one is named.
    """
    folder = workdir / run.folder
    _check_same(run, folder)
    file = folder / STATUS
    if not file.is_file():
        return LEFT
    status = json.loads(file.read_text())
    if status.pop("num_steps") != run.config.num_steps:
        return LEFT
    return Status(**status)


def write_status(run: StudyRun, workdir: Path, status: Status) -> None:
    """Records how a run ended; see `read_status`."""
    text = json.dumps({**status._asdict(), "num_steps": run.config.num_steps}, indent=2)
    (workdir / run.folder).mkdir(parents=True, exist_ok=True)
    write_whole(epath.Path(workdir / run.folder / STATUS), (text + "\n").encode())


def _check_same(run: StudyRun, folder: Path) -> None:
    file = folder / "config.json"
    if not (file.is_file() and (folder / "metrics.jsonl").is_file()):
        return
    from asyppo_jax.runs.metrics import read_metrics
    from asyppo_jax.runs.warm_start import with_warm_start  # slow imports, and few need them

    # `train` records the config with the base model of critics that start from a run's.
    config = with_warm_start(run.config, str(folder))
    before, now = flatten(from_dict(json.loads(file.read_text()))), flatten(config)
    for name in sorted(now.keys() - may_change()):
        if before[name] != now[name]:
            raise ConfigError(
                f"the run {run.name} in {folder} was made with config.{name} = {before[name]!r}, "
                f"the study has {now[name]!r}; give another --workdir, or remove that folder"
            )
    steps = max((row["step"] for row in read_metrics(folder / "metrics.jsonl")), default=0)
    if steps > run.config.num_steps:
        raise ConfigError(
            f"the run {run.name} in {folder} has {steps} steps, the study has config.num_steps = "
            f"{run.config.num_steps}; give another --workdir, or at least as many steps"
        )


def write_study(study: Study, runs: Sequence[StudyRun], workdir: Path) -> None:
    """Writes what the report needs beside results.csv into study.json.

    Raises:
        ConfigError: the directory is of another study, or of another number of threads.
    """
    file = workdir / SETTINGS
    if file.is_file():
        before = json.loads(file.read_text())
        for name, value in (("name", study.name), ("threads", study.threads)):
            if before[name] != value:
                raise ConfigError(
                    f"{workdir} has a study whose {name} is {before[name]!r}, this one has "
                    f"{value!r}; give another --workdir"
                )
    planned = Counter(run.setting for run in runs)
    settings = {
        "name": study.name,
        "threads": study.threads,
        "reference": study.reference or next(iter(study.methods)),
        "metric": study.metric,
        "final_evaluations": study.final_evaluations,
        "panels": {title: list(methods) for title, methods in study.panels.items()},
        "planned": [[*setting, count] for setting, count in planned.items()],
        "settings": settings_of(study),
    }
    workdir.mkdir(parents=True, exist_ok=True)
    write_whole(epath.Path(file), (json.dumps(settings, indent=2) + "\n").encode())


def write_results(
    study: Study,
    runs: Sequence[StudyRun],
    workdir: Path,
    elsewhere: Mapping[StudyRun, Sequence[Row]] | None = None,
) -> int:
    """Rewrites results.csv from the files of the runs that ended; returns their number.

    The rows are in the order of the study's tasks, actors, methods, seeds, then of steps and
    metrics, so they do not depend on the order in which the runs finished. Those of runs that ended
    `elsewhere` are taken as they are.

    Raises:
        ResultsError: the file that is there has rows of another study.
    """
    file = workdir / RESULTS
    if file.is_file():
        read_results(file, study.name)
    orders = [list(study.tasks), list(study.actors), list(study.methods), list(study.seeds)]

    def place(run: StudyRun) -> list[int]:
        return [order.index(x) for order, x in zip(orders, (*run.setting, run.seed), strict=True)]

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    ended = 0
    for run in sorted(runs, key=place):
        if rows := (elsewhere or {}).get(run):
            ended += 1
            writer.writerows((*row[:-1], _cell(row.value)) for row in rows)
            continue
        status = read_status(run, workdir)
        if status.state in ("finished", "diverged"):
            ended += 1
            writer.writerows(_rows_of(study, run, workdir, status))
    write_whole(epath.Path(file), text.getvalue().encode())
    return ended


def _rows_of(study: Study, run: StudyRun, workdir: Path, status: Status) -> list[tuple[Any, ...]]:
    lines = (workdir / run.folder / "metrics.jsonl").read_text().splitlines()
    steps = {row["step"]: row for row in map(json.loads, lines)}
    values = [
        (step, metric, row[metric])
        for step, row in steps.items()
        for metric in study.metrics
        if metric in row
    ]
    values.append((0, WARMUP, warmup_steps(run.config)))
    values.append((max(steps), DIVERGED, int(status.state == "diverged")))
    return [
        (study.name, *run.setting, run.seed, step, metric, _cell(x))
        for step, metric, x in sorted(values, key=lambda value: value[:2])
    ]


def _cell(value: float | None) -> str:
    return "nan" if value is None else repr(float(value))


def warmup_steps(config: Config) -> int:
    """Steps at the start that update the critics only."""
    return config.algorithm.critic_warmup_steps if config.algorithm.num_critics else 0


def read_results(file: Path, study: str = "") -> list[Row]:
    """The rows of a results file; `study`: of which all must be (empty: that of the first row).

    Raises:
        ResultsError: it has other columns, rows of another study, a row twice, or no number where
            one must be.
    """
    if not file.is_file():
        raise ResultsError(f"{file} does not exist; give the --workdir of a study")
    with file.open(newline="") as lines:
        reader = csv.reader(lines)
        columns = next(reader, [])
        if tuple(columns) != COLUMNS:
            unknown = [column for column in columns if column not in COLUMNS]
            what = f"the unknown column {unknown[0]!r}" if unknown else "other columns"
            raise ResultsError(f"{file} has {what}; it must have {', '.join(COLUMNS)}")
        rows = [_row(file, reader.line_num, cells) for cells in reader]
    study = study or (rows[0].study if rows else "")
    for number, row in enumerate(rows, start=2):
        if row.study != study:
            raise ResultsError(
                f"{file}, line {number}, is of the study {row.study!r}, not of {study!r}; give "
                "each study a directory of its own"
            )
    if twice := [key for key, count in Counter(row[:-1] for row in rows).items() if count > 1]:
        raise ResultsError(f"{file} has two rows of {' / '.join(map(str, twice[0]))}; remove one")
    return rows


def _row(file: Path, number: int, cells: list[str]) -> Row:
    try:
        *names, seed, step, metric, value = cells
        study, task, actor, method = names
        row = Row(study, task, actor, method, int(seed), int(step), metric, float(value))
        if math.isinf(row.value):
            raise ValueError("infinite")
    except ValueError:
        raise ResultsError(
            f"{file}, line {number}, is {','.join(cells)!r}; it must have {', '.join(COLUMNS)}, "
            "with numbers in seed, step and value"
        ) from None
    return row
