"""The files of a study, from runs that are written by hand."""

import dataclasses
import json
import math

import pytest

from asyppo_jax.config import ConfigError
from experiments.study.results import (
    COLUMNS,
    LEFT,
    RESULTS,
    ResultsError,
    Row,
    Status,
    read_results,
    read_status,
    write_results,
    write_status,
    write_study,
)
from experiments.study.study import Study, runs_of

STUDY = Study(
    name="s",
    base="tiny_test",
    tasks={"sums": {"num_steps": 2}},
    actors={"small": {}},
    methods={"AsyPPO": {}, "GRPO": {"algorithm.num_critics": 0, "algorithm.advantages": "grpo"}},
    seeds=(1, 0),
    metrics=("evaluate/accuracy", "actor/entropy"),
)
FINISHED = Status("finished", seconds=3.5)


def write_run(run, workdir, accuracies, status: Status | None = FINISHED):
    folder = workdir / run.folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(run.config)))
    rows = [{"step": s, "evaluate/accuracy": a, "x/y": 1} for s, a in enumerate(accuracies)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if status is not None:
        write_status(run, workdir, status)


def test_a_status_is_that_of_a_run_with_these_settings_and_steps(tmp_path):
    run = runs_of(STUDY)[0]
    assert read_status(run, tmp_path) == LEFT
    write_run(run, tmp_path, [0.5, 0.25, 0.75])
    assert read_status(run, tmp_path) == FINISHED
    longer = run._replace(config=dataclasses.replace(run.config, num_steps=4))
    assert read_status(longer, tmp_path) == LEFT  # to be continued
    batching = dataclasses.replace(run.config.batching, logits_chunk=7)
    other = run._replace(config=dataclasses.replace(run.config, batching=batching))
    with pytest.raises(
        ConfigError, match=r"sums / small / AsyPPO / seed 1 .*logits_chunk = 44, the study has 7"
    ):
        read_status(other, tmp_path)


def test_results_are_those_of_ended_runs_in_an_order_of_their_own(tmp_path):
    runs = runs_of(STUDY)
    by_name = {run.name.removeprefix("sums / small / "): run for run in runs}
    write_run(by_name["GRPO / seed 0"], tmp_path, [0.5], Status("diverged", "nan"))
    write_run(by_name["AsyPPO / seed 0"], tmp_path, [0.1, 0.2, None])
    write_run(by_name["GRPO / seed 1"], tmp_path, [0.5, 0.6], None)  # not at its end
    write_run(by_name["AsyPPO / seed 1"], tmp_path, [0.5], Status("failed", "why"))
    assert write_results(STUDY, runs, tmp_path) == 2
    text = (tmp_path / RESULTS).read_text()
    assert text.splitlines() == [
        "study,task,actor,method,seed,step,metric,value",
        "s,sums,small,AsyPPO,0,0,evaluate/accuracy,0.1",
        "s,sums,small,AsyPPO,0,0,run/warmup_steps,1.0",
        "s,sums,small,AsyPPO,0,1,evaluate/accuracy,0.2",
        "s,sums,small,AsyPPO,0,2,evaluate/accuracy,nan",
        "s,sums,small,AsyPPO,0,2,run/diverged,0.0",
        "s,sums,small,GRPO,0,0,evaluate/accuracy,0.5",
        "s,sums,small,GRPO,0,0,run/diverged,1.0",
        "s,sums,small,GRPO,0,0,run/warmup_steps,0.0",
    ]
    write_results(STUDY, runs[::-1], tmp_path)
    assert (tmp_path / RESULTS).read_text() == text
    rows = read_results(tmp_path / RESULTS)
    assert rows[0] == Row("s", "sums", "small", "AsyPPO", 0, 0, "evaluate/accuracy", 0.1)
    assert math.isnan(rows[3].value) and len(rows) == 8


LINE = "s,sums,small,GRPO,0,0,x,1.0"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([",".join(COLUMNS), LINE, "t" + LINE[1:]], "line 3, is of the study 't', not of 's'"),
        ([",".join(COLUMNS), "t" + LINE[1:]], "line 2, is of the study 't', not of 's'"),
        ([",".join(COLUMNS) + ",more", LINE + ",1"], "the unknown column 'more'; it must have"),
        ([",".join(COLUMNS[:-1])], "other columns; it must have study, task"),
        ([",".join(COLUMNS), LINE, LINE], "two rows of s / sums / small / GRPO / 0 / 0 / x"),
        ([",".join(COLUMNS), LINE + "x"], "line 2, is 's,sums,.*x'; it must have"),
        ([",".join(COLUMNS), LINE.replace("1.0", "inf")], "line 2, is"),
        ([",".join(COLUMNS), LINE + ",3"], "line 2, is"),
    ],
)
def test_a_file_that_is_not_this_studys_is_refused_and_left_as_it_is(lines, message, tmp_path):
    file = tmp_path / RESULTS
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ResultsError, match=message):
        write_results(STUDY, runs_of(STUDY), tmp_path)
    assert file.read_text() == "\n".join(lines) + "\n"


def test_a_directory_of_another_study_is_refused(tmp_path):
    runs = runs_of(STUDY)
    write_study(STUDY, runs, tmp_path)
    write_study(dataclasses.replace(STUDY, seeds=(0,)), runs, tmp_path)
    with pytest.raises(ConfigError, match="whose name is 's', this one has 't'"):
        write_study(dataclasses.replace(STUDY, name="t"), runs, tmp_path)
    with pytest.raises(ConfigError, match="whose threads is 1, this one has 2"):
        write_study(dataclasses.replace(STUDY, threads=2), runs, tmp_path)
    with pytest.raises(ResultsError, match=r"does not exist; give the --workdir of a study"):
        read_results(tmp_path / RESULTS)


def test_a_run_that_has_more_steps_than_the_study_is_refused(tmp_path):
    run = runs_of(STUDY)[0]
    write_run(run, tmp_path, [0.5, 0.25, 0.75])
    shorter = run._replace(config=dataclasses.replace(run.config, num_steps=1))
    with pytest.raises(ConfigError, match=r"has 2 steps, the study has config.num_steps = 1"):
        read_status(shorter, tmp_path)
