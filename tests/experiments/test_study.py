"""A study's document: the runs that it asks for, their order, and what is refused."""

import dataclasses
from pathlib import Path

import pytest

from asyppo_jax.config import ConfigError
from experiments.command_line import read_config_file
from experiments.study.study import Only, Study, differences, file_name, read_study, runs_of

STUDY = Study(
    name="s",
    base="tiny_test",
    tasks={"a": {"num_steps": 3}, "b": {"num_steps": 4, "algorithm.gamma": 0.9}},
    actors={"small": {}, "Large": {"actor.num_layers": 3, "algorithm.gamma": 0.8}},
    methods={"AsyPPO": {}, "no discount": {"algorithm.gamma": 1.0}},
    seeds=(5, 3),
)


def changed(**changes) -> Study:
    return dataclasses.replace(STUDY, **changes)


def test_a_run_has_the_changes_of_its_task_actor_method_and_seed():
    runs = {run.name: run for run in runs_of(STUDY)}
    assert len(runs) == 2 * 2 * 2 * 2
    run = runs["b / Large / AsyPPO / seed 3"]
    assert run.folder == "runs/b/large/asyppo/seed_3"
    assert (run.config.num_steps, run.config.actor.num_layers, run.config.seed) == (4, 3, 3)
    assert run.config.algorithm.gamma == 0.8  # the actor wins over the task
    assert runs["b / Large / no discount / seed 3"].config.algorithm.gamma == 1.0
    assert runs["b / small / AsyPPO / seed 3"].config.algorithm.gamma == 0.9
    assert runs["a / small / AsyPPO / seed 3"].config.num_steps == 3
    assert not any(run.config.log.tensorboard for run in runs.values())


def test_all_methods_have_a_seed_before_any_has_the_next():
    runs = runs_of(changed(only={"no discount": Only(tasks=("a",), seeds=(3,))}))
    assert [run.seed for run in runs] == [5] * 4 + [3] * 6
    assert [(r.task, r.method) for r in runs[4:7]] == [
        ("a", "AsyPPO"),
        ("a", "no discount"),
        ("a", "AsyPPO"),
    ]
    everywhere = Only(actors=("small",))
    assert len(runs_of(changed(only={"AsyPPO": everywhere}))) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 1)}, "the study s has 1 twice in its seeds"),
        ({"seeds": ()}, "has no seeds; give at least one"),
        ({"methods": {"K = 4": {}, "k 4": {}}}, r"'K = 4' and 'k 4' .* same folder, 'k_4'; rename"),
        ({"reference": "GRPO"}, "reference of the study names the method 'GRPO', which is not one"),
        ({"panels": {"p": ["PPO"]}}, r"panels\['p'\] of the study names the method 'PPO'"),
        ({"only": {"PPO": Only()}}, "only of the study names the method 'PPO'"),
        ({"only": {"AsyPPO": Only(tasks=("c",))}}, r"only\['AsyPPO'\] .* names the task 'c'"),
        ({"only": {"AsyPPO": Only(seeds=(9,))}}, "names the seed 9, which is not one of 5, 3"),
        ({"metric": "x/y"}, "compares 'x/y', which is not in its metrics"),
        ({"threads": 0}, "threads = 0"),
        ({"name": ""}, "has no name"),
        ({"methods": {"m": {"seed": 3}}}, "method 'm' changes seed; give seeds to the study"),
        (
            {"methods": {"m": {"algorithm.gama": 1.0}}},
            "method 'm' of the study: config.algorithm.gama is not a setting; did you mean",
        ),
        (
            {"methods": {"m": {"algorithm.num_critics": 3}}},
            "the runs a / small / m: .*3 critics cannot share evenly",
        ),
        ({"methods": {"m": {"algorithm.gamma": "much"}}}, "the runs a / small / m: a config file"),
        ({"base": "nothing"}, "the runs a / small / AsyPPO: nothing is not a config file"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence_before_any_run(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        _read(changed(**changes), tmp_path)


def _read(study: Study, directory: Path):
    file = directory / "study.py"
    file.write_text(f"from experiments.study.study import *\ndef get_study():\n return {study!r}")
    return runs_of(read_study(str(file)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods = {'a': {}, 'a': {}}", "line 1: 'a' is there twice"),
        ("x = 1", "there is no 'get_study'"),
        ("def get_study(): return 3", "returns a int; return a Study"),
        ("import nothing_of_that_name", "cannot be read: No module named"),
        ("def get_study(:", "cannot be read: invalid syntax"),
    ],
)
def test_a_file_with_a_mistake_is_refused(text, message, tmp_path):
    file = tmp_path / "study.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_study(str(file))


def test_a_study_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"nothing of --study does not exist; .* quickstart"):
        read_study("nothing")


@pytest.mark.parametrize(
    "file",
    sorted((Path(__file__).parents[2] / "configs/studies").glob("*.py")),
    ids=lambda f: f.stem,
)
def test_every_study_of_the_repository_can_be_read(file):
    study = read_study(file.stem)
    assert study.name == file.stem
    assert len({run.folder for run in runs_of(study)}) == len(runs_of(study))


def test_differences_make_one_config_of_another():
    changes = differences("quickstart_symmetric_ppo", "quickstart")
    assert changes == {"algorithm.num_critics": 1, "critic.num_layers": None}
    made = read_config_file("quickstart", changes)
    assert made == read_config_file("quickstart_symmetric_ppo")


def test_names_become_parts_of_paths():
    assert file_name("K = 4, mean/min (0.5)") == "k_4_mean_min_0.5"
