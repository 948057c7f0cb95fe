"""The grader of MinervaMath: any spelling of the reference, and numbers such as 4.5e33."""

import json

import pytest

from asyppo_jax.tasks.benchmarks.minerva_math import any_spelling


@pytest.mark.parametrize(
    ("references", "final_answer", "score"),
    [
        (["6630.65", "6630"], "6630", 1.0),
        (["6630.65", "6630"], "6630.65", 1.0),
        (["6630.65", "6630"], "6631", 0.0),
        (["4.5e33"], r"4.5 \times 10^{33}", 1.0),
        ([r"3.3 \times 10^{-10}"], "3.3e-10", 1.0),
        (["4.5e33"], r"4.5 \times 10^{32}", 0.0),
    ],
)
def test_any_spelling_of_the_reference_is_right(references, final_answer, score):
    completion = rf"Hence \boxed{{{final_answer}}}."
    assert any_spelling("", completion, json.dumps(references)) == score


def test_an_unreadable_spelling_does_not_hide_a_readable_one():
    assert any_spelling("", r"\boxed{7}", json.dumps(["", "7"])) == 1.0
    with pytest.raises(ValueError, match="cannot be read"):
        any_spelling("", r"\boxed{7}", json.dumps([""]))


def test_a_number_with_a_power_of_ten_needs_no_box():
    assert any_spelling("", "The answer is $4.5e33$.", '["4.5e33"]') == 1.0
    assert any_spelling("", r"\boxed{1.2\mathrm{e}{-3}}", '["1.2e-3"]') == 1.0
    assert any_spelling("", "The answer is 1.2e-4.", '["1.2e-3"]') == 0.0
