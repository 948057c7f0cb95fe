"""The report on references that cannot be read in full."""

import json

from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.references import check_references


def test_a_report_names_the_rows_of_each_kind():
    answers = ["5", r"\text{east}", "x = x", "$a x$, where $a$ is odd", "][", "", "$t(0,4]$"]
    report = check_references([Record("p", answer) for answer in answers])
    assert [row.index for row in report.text] == [4]
    assert [row.index for row in report.identity] == [2]
    assert [row.index for row in report.shortened] == [3]
    assert report.summary() == (
        "of 7 references 1 can only be compared as text (records[4] '][')"
        "; 1 say nothing, because they always hold (records[2] 'x = x')"
        "; 1 are read without some of their words (records[3] '$a x$, where $a$ is odd')"
    )


def test_a_clean_list_needs_no_report_and_long_ones_are_cut():
    assert check_references([Record("p", "5")]).summary() == ""
    spelled = [Record("p", json.dumps(["5", "]["]))]
    assert check_references(spelled, spellings=True).summary() == ""
    many = check_references([Record("p", "][")] * 9).summary()
    assert "and 6 more" in many
