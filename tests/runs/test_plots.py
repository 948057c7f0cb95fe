import json
import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.image import imread

from asyppo_jax.runs.metrics import MetricsError
from asyppo_jax.runs.plots import accuracy_figure, overview_figure, plot_run


def _rows(num_steps=40, num_critics=2, first_actor_step=1):
    random = np.random.default_rng(0)
    rows = [{"step": 0, "evaluate/accuracy": 0.25}]
    for step in range(1, num_steps + 1):
        row = {
            "step": step,
            "rollout/reward_mean": 0.3 + 0.01 * step + 0.01 * random.normal(),
            "rollout/completion_length_mean": 2000.0 - step,
            "rollout/log_prob_gap": 1e-6,
        }
        if step >= first_actor_step:
            row |= {"actor/entropy": 1 / step, "actor/clip_fraction_low": 0.02}
            row |= {"actor/clip_fraction_high": 0.02, "rollout/groups_without_spread": 0.5}
        if num_critics:
            row |= {f"critic/explained_variance_{k}": 0.1 * k for k in range(num_critics)}
            row |= {"critic/explained_variance": -5.0 if step == 1 else 0.5}
            row |= {"ensemble/value_std_p50": 0.1, "ensemble/value_std_p90": 0.3}
        if step % 10 == 0:
            row["evaluate/accuracy"] = 0.25 + 0.01 * step
        rows.append(row)
    return rows


def _write(workdir, rows):
    workdir.mkdir(exist_ok=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _axes(figure):
    return {ax.get_title(loc="left"): ax for ax in figure.axes}


def _texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_run_gives_two_image_files_that_are_not_empty(tmp_path):
    _write(tmp_path / "run", _rows())
    paths = plot_run(tmp_path / "run")
    assert [path.name for path in paths] == ["plots.png", "accuracy.png"]
    for path in paths:
        pixels = imread(str(path))[..., :3]
        assert pixels.shape[1] > 900 and 0.01 < (pixels.min(axis=-1) < 0.9).mean() < 0.5


def test_equal_metrics_give_equal_files(tmp_path):
    _write(tmp_path / "run", [{"step": s, "evaluate/accuracy": 0.1 * s} for s in range(5)])
    first = [path.read_bytes() for path in plot_run(tmp_path / "run")]
    assert [path.read_bytes() for path in plot_run(tmp_path / "run")] == first


def test_the_figure_names_the_run_and_the_number_of_steps():
    figure = overview_figure("my_run", _rows())
    assert figure is not None
    name, headline = (text.get_text() for text in figure.texts)
    assert name == "my_run" and headline.startswith("40 steps")


def test_every_quantity_has_a_panel():
    figure = overview_figure("run", _rows())
    assert figure is not None
    assert list(_axes(figure)) == [
        "Held-out accuracy",
        "Reward",
        "Groups without spread",
        "Entropy",
        "Explained variance",
        "Value std",
        "Clip fraction",
        "Completion length",
        "Log-prob gap",
    ]


def test_panels_without_data_are_left_out():
    figure = overview_figure("grpo", _rows(num_critics=0))
    assert figure is not None
    assert len(figure.axes) == 7
    assert not {"Explained variance", "Value std"} & set(_axes(figure))


def test_a_metric_that_is_always_null_has_no_panel():
    rows = [{"step": 1, "rollout/reward_mean": 0.5, "actor/entropy": None}]
    figure = overview_figure("run", rows)
    assert figure is not None and list(_axes(figure)) == ["Reward"]


@pytest.mark.parametrize("num_critics", [1, 2, 3, 8])
def test_each_critic_and_the_mean_value_have_a_curve(num_critics):
    figure = overview_figure("run", _rows(num_steps=5, num_critics=num_critics))
    assert figure is not None
    ax = _axes(figure)["Explained variance"]
    assert len(ax.lines) == num_critics + 2  # the mean value and the line at zero
    labels = {f"critic {k}" for k in range(num_critics)} if num_critics <= 3 else {"each critic"}
    assert set(_texts(ax)) == {"mean value"} | labels


def test_an_extreme_first_explained_variance_does_not_flatten_the_curve():
    figure = overview_figure("run", _rows())
    assert figure is not None
    low, high = _axes(figure)["Explained variance"].get_ylim()
    assert -1.3 < low < 0 < 0.5 < high


def test_long_curves_show_each_step_and_a_moving_average():
    figure = overview_figure("run", _rows(num_steps=100))
    assert figure is not None
    each, average = _axes(figure)["Reward"].lines
    each_y, average_y = np.asarray(each.get_ydata()), np.asarray(average.get_ydata())
    assert len(each_y) == len(average_y) == 100
    assert np.std(np.diff(average_y)) < np.std(np.diff(each_y)) / 2
    assert abs(average_y.mean() - each_y.mean()) < 0.01


def test_missing_values_do_not_pull_the_average_down():
    rows = [{"step": s, "actor/entropy": None if s % 3 == 0 else 2.0} for s in range(60)]
    figure = overview_figure("run", rows)
    assert figure is not None
    values = np.asarray(_axes(figure)["Entropy"].lines[-1].get_ydata())
    np.testing.assert_allclose(values[np.isfinite(values)], 2.0)
    assert np.isnan(values).sum() == 20


def test_accuracy_has_a_mark_per_evaluation_and_is_not_smoothed():
    rows = [{"step": s, "evaluate/accuracy": s / 100} for s in range(50)]
    figure = accuracy_figure("run", rows)
    assert figure is not None
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "run: held-out accuracy"

    assert ax.get_title(loc="right") == "0.0% \N{RIGHTWARDS ARROW} 49.0%"
    assert _texts(ax) == ["49.0%"]
    assert ax.lines[0].get_marker() == "o"
    for line in ax.lines:
        np.testing.assert_array_equal(line.get_ydata(), np.arange(50) / 100)


def test_held_out_results_of_another_reward_are_not_called_an_accuracy():
    rows = [{"step": s, "evaluate/accuracy": s / 4} for s in range(3)]
    figure = accuracy_figure("run", rows, "mean reward")
    assert figure is not None
    assert figure.axes[0].get_title(loc="left") == "run: held-out mean reward"
    figure = overview_figure("run", rows, measure="mean reward")
    assert figure is not None and list(_axes(figure)) == ["Held-out mean reward"]


def test_a_run_without_evaluations_has_no_accuracy_plot(tmp_path):
    _write(tmp_path / "run", [{"step": 1, "rollout/reward_mean": 0.5}])
    assert [path.name for path in plot_run(tmp_path / "run")] == ["plots.png"]


def test_labels_of_curves_with_the_same_end_do_not_overlap():
    figure = overview_figure("run", _rows())
    assert figure is not None
    heights = sorted(text.get_position()[1] for text in _axes(figure)["Clip fraction"].texts)
    assert heights[1] - heights[0] >= 0.099


@pytest.mark.parametrize("rows", [[], [{"step": 1}], [{"step": 1, "rollout/reward_mean": None}]])
def test_a_run_with_nothing_to_draw_is_refused_and_nothing_is_written(tmp_path, rows):
    _write(tmp_path / "run", rows)
    with pytest.raises(MetricsError, match="has nothing to draw; run at least one step"):
        plot_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"]


def test_drawing_does_not_change_pyplot_or_its_settings(tmp_path):
    backend, settings = mpl.get_backend(), dict(mpl.rcParams)
    _write(tmp_path / "run", [{"step": 1, "rollout/reward_mean": 0.5}])
    plot_run(tmp_path / "run")
    assert plt.get_fignums() == []
    assert mpl.get_backend() == backend and dict(mpl.rcParams) == settings


def test_numbers_of_any_size_are_drawn(tmp_path):
    tiny, large = {"rollout/log_prob_gap": 0.0}, {"rollout/completion_length_mean": 8192.0}
    _write(tmp_path / "run", [{"step": 1, **tiny, **large, "critic/explained_variance": -1e9}])
    assert plot_run(tmp_path / "run")
    figure = overview_figure("run", [{"step": 1, **tiny, **large}])
    assert figure is not None
    assert _texts(_axes(figure)["Completion length"]) == ["8,192"]
    assert all(math.isfinite(limit) for ax in figure.axes for limit in ax.get_ylim())


def test_the_accuracy_has_its_interval_and_the_figure_its_origin():
    rows = [{"step": s, "evaluate/accuracy": 0.5, "evaluate/accuracy_low": 0.4} for s in range(3)]
    rows = [row | {"evaluate/accuracy_high": 0.6} for row in rows]
    figure = overview_figure("run", rows, "seed 3")
    assert figure is not None
    (band,) = _axes(figure)["Held-out accuracy"].collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (heights.min(), heights.max()) == (0.4, 0.6)
    assert "seed 3" in figure.texts[1].get_text()


def test_the_parts_of_the_explained_variance_take_the_place_of_single_critics():
    names = ("prompts", "answers", "tokens")
    parts = {f"critic/explained_between_{name}": 0.1 for name in names}
    figure = overview_figure("run", [row | parts for row in _rows()])
    assert figure is not None
    labels = {text.get_text() for text in _axes(figure)["Explained variance"].texts}
    assert {"between prompts", "between answers", "within answers", "in all"} <= labels
