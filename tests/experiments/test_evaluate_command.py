"""The commands for a finished run: mistakes give a one-line error before anything is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyppo_jax.config import ConfigError
from experiments.command_line import read_step
from tests.tiny import save_model_directory

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("evaluate",), "--checkpoint is missing"),
        (("evaluate", "--checkpoint=x"), "--benchmark is missing; give one or more of aime24"),
        (("evaluate", "--checkpoint=x", "--benchmark=maths"), "no benchmark 'maths'; choose among"),
        (
            ("evaluate", "--checkpoint=x", "--benchmark=tests/fixtures/golden_step.jsonl"),
            "golden_step.jsonl does not exist; did you mean golden_step.json?",
        ),
        (("evaluate", "--checkpoint=x", "--samples=many"), "--samples"),
        (("export", "--workdir=x"), "--output=DIR is missing"),
    ],
)
def test_a_wrong_flag_gives_a_one_line_error(arguments, sentence):
    done = run(f"experiments.{arguments[0]}", *arguments[1:])
    assert done.returncode != 0
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_a_step_is_a_number_or_latest_or_best():
    assert [read_step(text) for text in ("latest", "best", "40")] == ["latest", "best", 40]
    with pytest.raises(ConfigError, match="--step is 'last'; give a step number, latest or best"):
        read_step("last")


def test_the_command_writes_answers_and_prints_a_table_and_a_line_of_json(tmp_path):
    model = save_model_directory(tmp_path / "model")
    rows = [{"question": f"{n}+{n}", "answer": float(2 * n)} for n in range(4)]
    (tmp_path / "amc23.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = (
        f"--checkpoint={model}",
        "--samples=2",
        "--max_tokens=4",
        "--batch_size=2",
        "--template={problem}=",
        f"--data_dir={tmp_path}",
        f"--output={tmp_path}/out",
    )
    own = tmp_path / "amc23.jsonl"
    fields = ("--problem_field=question", "--grader=exat")
    wrong = run("experiments.evaluate", *arguments, f"--benchmark={own}", *fields)
    assert 'error: --grader is \'exat\'; give "math", "exact", ' in wrong.stderr
    assert not (tmp_path / "out").exists()  # so the corrected command is not another evaluation
    done = run("experiments.evaluate", *arguments, "--benchmark=amc23", "--json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (summary,) = json.loads(lines[-1])
    assert summary["num_problems"] == 4 and "AMC 2023" in lines[-2]
    assert len((tmp_path / "out" / "amc23" / "answers.jsonl").read_text().splitlines()) == 8
    assert "8/8" in done.stderr  # the progress bar
