"""The table of what critics know, from files as `experiments.value_truth` writes them."""

import json

import pytest

from asyppo_jax.config import ConfigError
from experiments.asyppo_study.truth import FILE, collect, truth_report


def write_truth(study, method, seed, errors, **more):
    """A run with these squared errors at 0%, 50% and 90%; a constant's are 0.2."""
    directory = study / "runs" / "sums" / "qwen3" / method / f"seed_{seed}" / "value_truth"
    (directory / "step_100").mkdir(parents=True)
    positions = [
        {"fraction": fraction, "mse_value": error, "mse_constant": 0.2, "mse_group_mean": 0.1}
        | {"correlation": 0.5, "correlation_group_mean": 0.9, "bias": -0.1}
        | more
        for fraction, error in zip((0.0, 0.5, 0.9), errors, strict=True)
    ]
    content = json.dumps({"step": 100, "positions": positions})
    (directory / "step_100" / "value_truth.json").write_text(content)


def test_errors_are_means_over_positions_from_15_percent_on_relative_to_the_constants(tmp_path):
    write_truth(tmp_path, "asyppo", 0, (9.0, 0.1, 0.3), sigma_rank_correlation=0.25)
    write_truth(tmp_path, "asyppo", 1, (9.0, 0.2, 0.4), sigma_rank_correlation=0.75)
    write_truth(tmp_path, "symmetric_ppo", 0, (9.0, 0.1, 0.1), sigma_rank_correlation=None)
    assert collect(tmp_path) == 3
    text = truth_report(tmp_path)
    both = "1.25 (1.00 to 1.50) | 0.50 (0.50 to 0.50) | 0.50 | -0.10 | 0.50 |"
    assert f"| sums | qwen3 | asyppo | 2 | {both}" in text
    assert "| sums | qwen3 | symmetric_ppo | 1 | 0.50 (0.50 to 0.50) |" in text
    assert text.endswith("| -0.10 |  |")  # no σ with one critic


def test_the_file_alone_gives_the_table(tmp_path):
    write_truth(tmp_path, "asyppo", 0, (9.0, 0.1, 0.3))
    collect(tmp_path)
    before = truth_report(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert truth_report(tmp_path) == before


def test_runs_of_another_machine_stay_in_the_file(tmp_path):
    for study, seeds in (("whole", (0, 1)), ("there", (0,)), ("here", (1,))):
        for seed in seeds:
            write_truth(tmp_path / study, "asyppo", seed, (9.0, 0.1 + seed, 0.3))
    there, here = tmp_path / "there", tmp_path / "here"
    assert (collect(tmp_path / "whole"), collect(there)) == (2, 1)
    (here / FILE).write_bytes((there / FILE).read_bytes())
    assert collect(here) == 2
    assert (here / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    write_truth(here, "asyppo", 0, (9.0, 0.7, 0.3))  # the same run, measured here
    assert collect(here) == 2 and ",0.7\n" in (here / FILE).read_text()


def test_a_study_without_true_values_says_how_to_get_them(tmp_path):
    with pytest.raises(ConfigError, match=r"run `python -m experiments.value_truth --workdir=RUN`"):
        truth_report(tmp_path)
