"""Verdicts on the paper's claims, from curves that are written by hand."""

import numpy as np
import pytest

from experiments.asyppo_study.claims import CLAIMS, claims_report, verdict
from experiments.asyppo_study.settings import METHODS
from experiments.report.curves import Curve, Results, Setting
from experiments.report.statistics import Estimate


def results(finals: dict[tuple[str, str], list[float]], diverged: tuple[str, ...] = ()) -> Results:
    """Runs by task and method that end at these values, one per seed."""
    curves: dict[tuple[Setting, str], dict[int, Curve]] = {
        ((task, "qwen3"), method): {
            seed: Curve({0: 0.3, 10: x}, diverged=method in diverged and seed == 0)
            for seed, x in enumerate(values)
        }
        for (task, method), values in finals.items()
    }
    return Results("asyppo", "accuracy", "asyppo", {}, 1, curves, {})


@pytest.mark.parametrize(
    ("interval", "effect", "diverged", "expected"),
    [
        ((0.02, 0.01, 0.03), 0.03, 0, "confirmed"),
        ((0.02, 0.01, 0.03), 0.03, 1, "not confirmed, because a run diverged"),
        ((-0.02, -0.03, -0.01), 0.03, 0, "reversed"),
        ((0.01, -0.01, 0.02), 0.03, 0, "not seen: no effect of this size"),
        ((0.01, -0.01, 0.04), 0.03, 0, "not seen"),
        ((0.01, -0.01, 0.02), None, 0, "not seen"),
        ((0.01, np.nan, np.nan), 0.03, 0, "too few seeds"),
        ((np.nan, np.nan, np.nan), 0.03, 0, "not run"),
    ],
)
def test_the_verdict_is_that_of_the_rule_which_was_fixed_before_the_runs(
    interval, effect, diverged, expected
):
    assert verdict(Estimate(*interval), effect, diverged) == expected


def test_differences_are_paired_by_seed_and_averaged_over_tasks():
    text = claims_report(
        results(
            {
                ("sums", "asyppo"): [0.5, 0.6],
                ("sums", "symmetric_ppo"): [0.4, 0.5],
                ("chains", "asyppo"): [0.7, 0.3],
                ("chains", "symmetric_ppo"): [0.4, 0.0],
            }
        )
    )
    assert "| +0.200 [+0.200, +0.200] | 4 | confirmed |" in text
    assert "| H2 | asyppo | grpo | +3 points (14B) |  | 0 | not run |" in text
    # Standard deviation with n − 1, and the worst seed.
    assert "| asyppo | 0.0707, 0.500 | 0.2828, 0.300 |" in text


def test_a_diverged_run_keeps_a_claim_from_being_confirmed():
    finals = {("sums", "asyppo"): [0.0, 0.6, 0.6], ("sums", "symmetric_ppo"): [0.1, 0.5, 0.5]}
    text = claims_report(results(finals, diverged=("asyppo",)))
    assert "| +0.100 [+0.100, +0.100] | 2 | not confirmed, because a run diverged |" in text


def test_every_claim_is_about_methods_of_the_study():
    assert {name for claim in CLAIMS for name in (claim.first, claim.second)} <= METHODS.keys()
