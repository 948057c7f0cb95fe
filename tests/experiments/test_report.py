"""The report of a study, from a results file that is written by hand."""

import json

import numpy as np
import pytest

from experiments.report.curves import ReportError, load
from experiments.report.figures import ablations, curves, differences, draw
from experiments.report.tables import report, steps_after_warmup
from experiments.study.results import COLUMNS, ResultsError

SETTING = ("sums", "small")
METHODS = ("AsyPPO", "PPO", "gone")


def write_study(directory, runs, methods=METHODS, settings=(SETTING,), seeds=3, **changes):
    """`runs` are (setting, method, seed, warm-up steps, diverged, {step: accuracy})."""
    lines = [",".join(COLUMNS)]
    for (task, actor), method, seed, warmup, diverged, points in runs:
        values = [(step, "evaluate/accuracy", x) for step, x in points.items()]
        values += [(0, "run/warmup_steps", warmup), (max(points), "run/diverged", int(diverged))]
        values += [(step, "time/update_s", 0.5 + step) for step in range(1, 4)]
        lines += [f"s,{task},{actor},{method},{seed},{s},{m},{x}" for s, m, x in values]
    (directory / "results.csv").write_text("\n".join(lines) + "\n")
    planned = [[*setting, method, seeds] for setting in settings for method in methods]
    choices = {"name": "s", "reference": "PPO", "metric": "evaluate/accuracy", "threads": 1}
    choices |= {"final_evaluations": 1}
    choices |= {"panels": {"both": ["AsyPPO", "PPO"]}, "planned": planned, **changes}
    (directory / "study.json").write_text(json.dumps(choices))


RUNS = [
    (SETTING, "AsyPPO", 0, 2, False, {0: 0.0, 2: 0.2, 4: 0.6}),
    (SETTING, "AsyPPO", 1, 2, False, {0: 0.0, 2: 0.4, 4: 0.8}),
    (SETTING, "AsyPPO", 2, 2, True, {0: 0.0, 2: 0.1}),
    (SETTING, "PPO", 1, 1, False, {0: 0.0, 2: 0.2, 4: 0.4}),
    (SETTING, "PPO", 2, 1, False, {0: 0.0, 2: 0.2, 4: 0.6}),
    (SETTING, "gone", 0, 0, True, {0: 0.0}),
]


def test_the_final_value_is_the_mean_of_the_last_evaluations(tmp_path):
    write_study(tmp_path, RUNS, final_evaluations=2)
    results = load(tmp_path)
    curve = results.curves[SETTING, "AsyPPO"][1]
    assert curve.final() == pytest.approx((0.8 + 0.4) / 2)
    assert curve.final(3) == pytest.approx((0.6 + 0.2) / 2)  # on the lines between evaluations
    assert "that of the last 2 evaluations, their mean" in report(results)


def cells(text: str, method: str) -> list[list[str]]:
    """The cells of the lines of a method, one list per table."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {method} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_means_intervals_differences_and_what_is_missing(tmp_path):
    write_study(tmp_path, RUNS)
    text = report(load(tmp_path))
    final, after_warmup, seconds = cells(text, "AsyPPO")
    assert final == [
        *("AsyPPO", "3", "1", "0.700 [0.600, 0.800]"),
        "+0.400, n = 1",  # seed 1 alone is common
        "0.88 [0.50, 1.00]",  # 0.6 = 0.6, 0.6 > 0.4, and 0.8 is above both: 3.5 / 4
        *("0.600", "0.325 [0.250, 0.400]", "+0.200, n = 1"),
    ]
    # Two steps after the warm-up: step 4 of AsyPPO, and step 3 of PPO, between two evaluations.
    assert after_warmup[3] == "0.700 [0.600, 0.800]" and after_warmup[4] == "+0.500, n = 1"
    assert cells(text, "PPO")[1][3] == "0.350 [0.300, 0.400]"
    assert after_warmup[7] == "0.500 [0.400, 0.600]"
    assert cells(text, "PPO")[0][1:3] == ["2 of 3", "0"]
    assert seconds[1:] == ["", "", "2.50", "2.50"]  # the others are not in the file
    assert cells(text, "gone") == [["gone", "1 of 3", "1", *[""] * 6]] * 2


def test_the_same_file_gives_the_same_bytes(tmp_path):
    write_study(tmp_path, RUNS)
    outputs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        results = load(tmp_path)
        files = draw(results, tmp_path / name)
        outputs.append([report(results), *(file.read_bytes() for file in files)])
    assert [file.name for file in files] == ["curves.png", "differences.png", "ablations.png"]
    assert outputs[0] == outputs[1]


def test_several_settings_have_a_mean_over_all(tmp_path):
    other = ("words", "small")
    runs = [*RUNS, *((other, *run[1:]) for run in RUNS[:2])]
    runs.append((other, "PPO", 1, 1, False, {0: 0.0, 4: 0.2}))
    write_study(tmp_path, runs, settings=(SETTING, other), panels={})
    text = report(load(tmp_path))
    all_of_them = cells(text.partition("## All")[2], "AsyPPO")[0]
    # (0.8 − 0.4) / 2 + (0.8 − 0.2) / 2, of one common seed each
    assert all_of_them == ["AsyPPO", "4", "0.700 [0.600, 0.800]", "+0.500"]
    assert cells(text.partition("## All")[2], "gone") == []
    draw(load(tmp_path), tmp_path)


def test_an_actor_with_fewer_methods_hides_none_of_the_others(tmp_path):
    small, large = ("sums", "small"), ("sums", "large")
    runs = [
        ((task, actor), method, seed, 0, False, {0: 0.0, 4: 0.5})
        for task, actor in (small, ("words", "small"), large, ("words", "large"))
        for method in (("PPO", "AsyPPO") if actor == "small" else ("PPO",))
        for seed in (0, 1)
    ]
    settings = tuple(dict.fromkeys(run[0] for run in runs))
    write_study(tmp_path, runs, settings=settings, panels={"a": ["PPO"], "b": ["AsyPPO"]})
    results = load(tmp_path)
    of_all, of_small, of_large = report(results).partition("## All")[2].split("## All tasks / ")
    assert cells(of_all, "AsyPPO") == [] and cells(of_all, "PPO")[0][1] == "8"
    assert of_small.startswith("small\n") and cells(of_small, "AsyPPO")[0][1] == "4"
    assert of_large.startswith("large\n") and cells(of_large, "AsyPPO") == []
    assert [axes.axison for axes in differences(results).axes] == [True, True, False, False]
    for figure in (curves(results), ablations(results)):
        assert [axes.axison for axes in figure.axes] == [True] * 6 + [False] * 2


def test_steps_after_the_warm_up_are_those_that_all_have(tmp_path):
    write_study(tmp_path, RUNS)
    assert steps_after_warmup(load(tmp_path), SETTING) == 2


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (dict(runs=[]), ReportError, "has no runs"),
        (dict(runs=RUNS, name="t"), ResultsError, "rows of the study 's', but .* is of 't'"),
        (dict(runs=RUNS, methods=("PPO",)), ResultsError, "rows of sums / small / AsyPPO, which"),
        (
            dict(runs=[(SETTING, "PPO", 1, 0, False, {0: 0.0, 1: np.nan})]),
            ReportError,
            "the run sums / small / PPO / seed 1 has no evaluate/accuracy, or one that is not fin",
        ),
        (dict(runs=RUNS, metric="actor/kl"), ReportError, "seed 0 has no actor/kl"),
    ],
)
def test_results_that_cannot_be_reported_are_named(write, error, message, tmp_path):
    write_study(tmp_path, **write)
    with pytest.raises(error, match=message):
        load(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ResultsError, match=r"results.csv does not exist"):
        load(tmp_path)
    write_study(tmp_path, RUNS)
    (tmp_path / "study.json").unlink()
    with pytest.raises(ReportError, match=r"study.json is missing; the study writes it beside"):
        load(tmp_path)


def test_a_run_of_the_critics_only_has_no_steps_after_the_warm_up(tmp_path):
    only_critics = (SETTING, "AsyPPO", 0, 10, False, {0: 0.1, 5: 0.5})
    write_study(tmp_path, [only_critics, (SETTING, "PPO", 0, 0, False, {0: 0.1, 5: 0.5})])
    text = report(load(tmp_path))
    assert "A method has no step after the critics' warm-up" in text and "-5 steps" not in text
    assert [line[3] for line in cells(text, "AsyPPO")[:1]] == ["0.500"]


def test_a_run_that_diverged_before_its_first_value_is_counted(tmp_path):
    write_study(tmp_path, [*RUNS[:5], (SETTING, "gone", 0, 0, True, {0: 0.0})], metric="x/y")
    file = tmp_path / "results.csv"
    lines = [line.replace("evaluate/accuracy", "x/y") for line in file.read_text().splitlines()]
    file.write_text("\n".join(x for x in lines if ",gone," not in x or "x/y" not in x) + "\n")
    assert cells(report(load(tmp_path)), "gone")[0][1:4] == ["1 of 3", "1", ""]
