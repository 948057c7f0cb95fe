"""The command counts what was lost; the slow test hits real runs."""

import json
import subprocess
import sys

import pytest

from experiments.torture.__main__ import Row, rows_of_hits, rows_of_outcomes, table
from experiments.torture.fuzz import Outcome
from experiments.torture.kills import Hit, find_complaint


def run(*flags):
    command = [sys.executable, "-m", "experiments.torture", *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_fuzz_prints_a_table_and_all_outcomes_as_the_last_line():
    done = run("--fuzz=3", "--seed=1", "--json")
    assert done.returncode == 0 and "| mutated config file | 1 | - | 0 |" in done.stdout
    outcomes = json.loads(done.stdout.splitlines()[-1])["fuzz"]
    assert [outcome["kind"] for outcome in outcomes] == ["setting", "flag", "config file"]


@pytest.mark.parametrize("flags", [(), ("--kills=-1",)])
def test_numbers_that_do_nothing_are_refused(flags):
    done = run(*flags)
    assert done.returncode == 2 and done.stderr.endswith("give --kills=N or --fuzz=N, at least 1\n")


def hit(**changes):
    values = {"fault": "SIGKILL", "writing": True, "step": 2, "status": -9, "seconds": 0.1}
    return Hit(**(values | {"lost_bits": 0, "complaint": ""} | changes))


def test_rows_add_up_what_was_lost():
    hits = [hit(), hit(lost_bits=7, seconds=0.3), hit(writing=False, complaint="Traceback")]
    assert rows_of_hits(hits) == [
        Row("SIGKILL while a checkpoint is written", 2, 7, 0, "ends within 0.3 s"),
        Row("SIGKILL at a random moment", 1, 0, 1, "ends within 0.1 s"),
    ]
    results = ("ok", "refused", "fault")
    outcomes = [Outcome(i, "flag", "", result, "") for i, result in enumerate(results)]
    rows = rows_of_outcomes(outcomes)
    assert rows == [Row("mutated flag", 3, None, 1, "1 refused, 1 accepted")]
    assert table(rows_of_hits(hits) + rows).splitlines()[-1] == "| all | 6 | 7 | 2 |  |"


@pytest.mark.parametrize(
    ("fault", "status", "output", "seconds", "complaint"),
    [
        ("SIGKILL", -9, "step 1/8\n", 0.1, ""),
        ("SIGKILL", 1, "", 0.1, "status 1"),
        ("SIGTERM", 143, "stopped by SIGTERM; ...\n", 9.0, ""),
        ("SIGTERM", -15, "", 0.0, ""),
        ("SIGTERM", 143, "", 21.0, "it ended 21 s after SIGTERM"),
        ("SIGTERM", 134, "terminate called\n", 0.1, "status 134: terminate called"),
        ("full disk", 1, "step 1/8\nerror: no space\n", 3.0, ""),
        ("full disk", 1, "step 1/8\n", 3.0, "no sentence at its end"),
        ("full disk", 1, "Traceback (most recent call last):\nerror: x\n", 3.0, "Traceback"),
        ("full disk", 0, "finished\n", 3.0, ""),
    ],
)
def test_every_end_but_a_sentence_is_a_complaint(fault, status, output, seconds, complaint):
    found = find_complaint(fault, status, output, seconds)
    assert found.startswith(complaint) and bool(found) == bool(complaint)


@pytest.mark.slow
def test_each_fault_while_a_checkpoint_is_written_loses_nothing():
    done = run("--kills=6", "--seed=3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    hits = json.loads(done.stdout.splitlines()[-1])["kills"]
    assert len(hits) == 6 and sum(entry["writing"] for entry in hits) >= 3
    assert {entry["fault"] for entry in hits} == {"SIGKILL", "SIGTERM", "full disk"}
