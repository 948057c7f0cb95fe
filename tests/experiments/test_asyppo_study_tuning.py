"""The report of the tuning, from curves that are written by hand."""

from experiments.asyppo_study.tuning import chosen, tuning_report
from experiments.report.curves import Curve, Results, Setting

SETTING = ("sums", "qwen3")


def results(finals: dict[str, list[float]]) -> Results:
    """Runs that end at these values, one per seed."""
    curves: dict[tuple[Setting, str], dict[int, Curve]] = {
        (SETTING, name): {s: Curve({0: 0.3, 10: x}) for s, x in enumerate(values)}
        for name, values in finals.items()
    }
    return Results("t", "accuracy", "", {}, 1, curves, {})


def test_the_report_has_the_means_the_choices_and_the_power_of_paired_seeds():
    text = tuning_report(
        results(
            {
                "asyppo, 0.0001, 0.001": [0.55, 0.61, 0.72],
                "asyppo, 0.0003, 0.001": [0.7, 0.7, 0.7],
                "grpo, 0.0001": [0.5, 0.6, 0.7],
                "grpo, 0.0003": [0.6, 0.6, 0.61],
            }
        )
    )
    assert "| asyppo | 0.0001 | 0.001 | 0.627 | 0.627 |" in text
    assert "| grpo | 0.0001 |  | 0.600 | 0.600 |" in text
    assert "asyppo: asyppo, 0.0003, 0.001" in text
    assert "grpo: grpo, 0.0001" in text  # the other is better by less than a point
    assert "symmetric_ppo: no run has ended" in text
    # Differences 0.05, 0.01 and 0.02 have a std of 0.0208.
    assert "sums / qwen3: the difference of two methods has a std of 0.021 over seeds" in text
    assert "a difference of 0.03 is seen with a probability of 0.98" in text


def test_one_seed_gives_a_table_without_a_spread():
    text = tuning_report(results({"asyppo, 0.0001, 0.001": [0.5], "grpo, 0.0001": [0.4]}))
    assert "| asyppo | 0.0001 | 0.001 | 0.500 | 0.500 |" in text and "probability" not in text


def test_the_base_configs_rates_stay_in_a_tie():
    assert chosen({"base": 0.5, "other": 0.509}) == "base"
    assert chosen({"base": 0.5, "other": 0.511}) == "other"
