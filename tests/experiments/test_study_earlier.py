"""Runs that were done on another machine: only their rows are there."""

import dataclasses
import json

import pytest

from asyppo_jax.config import ConfigError
from experiments.study.earlier import read_earlier
from experiments.study.progress import listing, run_study
from experiments.study.results import RESULTS, SETTINGS, ResultsError, Status, write_results
from experiments.study.study import Study, runs_of
from tests.experiments.test_study_results import STUDY, write_run

SMALLER = dataclasses.replace(STUDY, methods={"AsyPPO": {}})
FINISHED = Status("finished", seconds=3.5)


def do_runs(study: Study, workdir, **values):
    """All runs of a study, written by hand, and its files."""
    runs = runs_of(study)
    for run in runs:
        write_run(run, workdir, [0.1, run.seed / 4, values.get(run.method, 0.5)], FINISHED)
    assert run_study(study, runs, workdir, 1) == []


def test_a_study_goes_on_with_the_runs_of_another_machine(tmp_path, capsys):
    there, here = tmp_path / "there", tmp_path / "here"
    do_runs(SMALLER, there, AsyPPO=0.75)
    runs = runs_of(STUDY)
    earlier = read_earlier(STUDY, runs, there)
    assert [run.method for run in earlier] == ["AsyPPO", "AsyPPO"]
    new = [run for run in runs if run not in earlier]
    for run in new:
        write_run(run, here, [0.1, 0.2, 0.3], FINISHED)
    assert run_study(STUDY, runs, here, 1, earlier) == []
    assert "4 runs: 4 finished" in capsys.readouterr().out
    both = (here / RESULTS).read_text()
    assert set((there / RESULTS).read_text().splitlines()) < set(both.splitlines())
    # The same rows as if one machine had done all runs.
    whole = tmp_path / "whole"
    do_runs(STUDY, whole, AsyPPO=0.75, GRPO=0.3)
    lines = [line for line in both.splitlines() if "AsyPPO" in line]
    assert lines == [x for x in (whole / RESULTS).read_text().splitlines() if "AsyPPO" in x]
    assert (here / SETTINGS).read_text() == (whole / SETTINGS).read_text()
    assert "left" in listing(runs, tmp_path / "empty", earlier)
    assert listing(runs, tmp_path / "empty", earlier).endswith("4 runs: 2 finished, 2 left")


def test_a_diverged_run_stays_one(tmp_path):
    runs = runs_of(SMALLER)
    write_run(runs[0], tmp_path, [0.5, None], Status("diverged", "nan"))
    write_run(runs[1], tmp_path, [0.5, 0.5, 0.5], FINISHED)
    run_study(SMALLER, runs, tmp_path, 1)
    before = (tmp_path / RESULTS).read_text()
    earlier = read_earlier(SMALLER, runs, tmp_path)
    assert earlier[runs[0]].status == Status("diverged")
    write_results(SMALLER, runs, tmp_path, {run: ended.rows for run, ended in earlier.items()})
    assert (tmp_path / RESULTS).read_text() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"AsyPPO": {"algorithm.num_critics": 4}}}, "when the method 'AsyPPO' changed"),
        (
            {"tasks": {"sums": {"num_steps": 2, "sampling.temperature": 0.5}}},
            "when the task 'sums' changed {}",
        ),
        (
            {"base": "quickstart"},
            r"the base quickstart has changed .*sampling\.num_prompts from 4 to 16, .*; change it",
        ),
        ({"threads": 2}, "made with 1 threads, the study has 2; set threads = 1"),
    ],
)
def test_runs_of_other_settings_are_refused(changes, message, tmp_path):
    do_runs(SMALLER, tmp_path)
    changed = dataclasses.replace(SMALLER, **changes)
    with pytest.raises((ConfigError, ResultsError), match=message):
        read_earlier(changed, runs_of(changed), tmp_path)


def test_a_base_setting_is_compared_by_its_value_and_not_by_its_default(tmp_path):
    do_runs(SMALLER, tmp_path)
    settings = json.loads((tmp_path / SETTINGS).read_text())
    base = settings["settings"]["base"][""]
    assert base.pop("algorithm.gamma") == 1.0  # a setting that is newer than the runs
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    assert len(read_earlier(SMALLER, runs_of(SMALLER), tmp_path)) == 2
    base["algorithm.gamma"] = 0.5  # the default of that time
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"changed algorithm\.gamma from 0\.5 to 1\.0;"):
        read_earlier(SMALLER, runs_of(SMALLER), tmp_path)


def test_rows_that_the_study_cannot_use_are_refused(tmp_path):
    do_runs(STUDY, tmp_path)
    with pytest.raises(ResultsError, match="sums / small / GRPO / 1, which the study does not hav"):
        read_earlier(SMALLER, runs_of(SMALLER), tmp_path)
    longer = dataclasses.replace(STUDY, tasks={"sums": {"num_steps": 3}})
    with pytest.raises(ResultsError, match=r"2 steps of the run sums .*num_steps is 3; remove"):
        read_earlier(longer, runs_of(longer), tmp_path)
    settings = json.loads((tmp_path / SETTINGS).read_text())
    del settings["settings"]
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(ResultsError, match="does not say with which settings its runs were made"):
        read_earlier(STUDY, runs_of(STUDY), tmp_path)
    (tmp_path / RESULTS).unlink()
    with pytest.raises(ResultsError, match="does not exist; give"):
        read_earlier(STUDY, runs_of(STUDY), tmp_path)
