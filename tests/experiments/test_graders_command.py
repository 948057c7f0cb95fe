"""The command grades each case with each grader; other projects' packages are made up here."""

import json
import subprocess
import sys

import pytest

from experiments.graders.graders import Grader, missing_packages

CASES = [
    {"id": "1", "kind": "numbers", "grader": "math", "gold": "0.5", "right": 1}
    | {"completion": r"\boxed{\frac{1}{2}}"},
    {"id": "2", "kind": "numbers", "grader": "math", "gold": "5", "right": 0}
    | {"completion": r"\boxed{6}"},
    {"id": "3", "kind": "words", "grader": "minerva_math", "gold": '["6", "5"]', "right": 1}
    | {"completion": "The answer is 5."},
]
# What the graders of other projects have, in a few lines; the packages around them cannot be
# imported, because they import what is not installed.
PRIME_MATH = r"""
from verl.utils.py_functional import Metric

def compute_score(completion, reference):
    if "answer is" in completion:
        raise RecursionError
    return completion == rf"\boxed{{{reference}}}", True, ""
"""
MINERVA = r"""
import time

def get_unnormalized_answer(completion):
    return "[invalidanswer]" if "answer is" not in completion else completion[-2]

def last_boxed_only_string(completion):
    return completion

def remove_boxed(box):
    return box.removeprefix(r"\boxed{").removesuffix("}")

def normalize_final_answer(text):
    return text.strip()

def is_equiv(answer, reference):
    if answer == "6":
        time.sleep(60)
    return answer == reference
"""
UNUSABLE = "import a_package_that_is_not_installed"
FILES = {
    "verl/__init__.py": UNUSABLE,
    "verl/utils/__init__.py": UNUSABLE,
    "verl/utils/py_functional.py": "from verl.utils.metric import Metric",
    "verl/utils/metric/__init__.py": UNUSABLE,
    "verl/utils/reward_score/prime_math/__init__.py": PRIME_MATH,
    "lm_eval/__init__.py": UNUSABLE,
    "lm_eval/tasks/minerva_math/utils.py": MINERVA,
}


@pytest.fixture
def peers(tmp_path):
    for name, text in FILES.items():
        file = tmp_path / "peers" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in ("verl", "lm_eval", "pylatexenc", "antlr4_python3_runtime"):
        file = tmp_path / "peers" / f"{name}-1.2.dist-info" / "METADATA"
        file.parent.mkdir()
        file.write_text(f"Name: {name}\nVersion: 1.2\n")
    return tmp_path / "peers"


def run(*flags):
    command = [sys.executable, "-m", "experiments.graders", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True)


def test_errors_hangs_and_right_verdicts_of_each_grader_are_counted(tmp_path, peers):
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(json.dumps(case) + "\n" for case in CASES))
    names = "product,verl_prime,lm_eval_minerva"
    flags = f"--cases={file}", f"--peers={peers}", f"--graders={names}", "--limit=1", "--json"
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "| kind | right | wrong | product | verl_prime 1.2 | lm_eval_minerva 1.2 |"
    assert lines[2:5] == [
        "| numbers | 1 | 1 | 0 / 0 / 0 | 1 / 0 / 0 | 1 / 0 / 1 |",
        "| words | 1 | 0 | 0 / 0 / 0 | 0 / 0 / 1 | 0 / 0 / 0 |",
        "| all | 2 | 1 | 0 / 0 / 0 | 1 / 0 / 1 | 1 / 0 / 1 |",
    ]
    results = json.loads(lines[-1])
    assert results["lm_eval_minerva 1.2"]["errors"] == [
        {"id": "1", "error": "false negative"},
        {"id": "2", "error": "invalid"},
    ]
    assert results["product"]["total"] == {"false_negatives": 0, "false_positives": 0, "invalid": 0}


def test_a_grader_that_is_not_installed_is_named_in_one_sentence(tmp_path):
    done = run("--graders=verl_prime", f"--peers={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"verl_prime is left out, because {tmp_path} has no verl, pylatexenc,")
    assert second == "error: none of the graders is installed"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--graders=prime", "there is no grader 'prime'; choose from product, math_verify,"),
        ("--limit=0", "--limit takes seconds, more than 0"),
        ("--cases=none.jsonl", "error: the file of cases none.jsonl cannot be read"),
    ],
)
def test_a_wrong_flag_ends_in_one_sentence(flag, message):
    done = run(flag)
    assert done.returncode in (1, 2) and message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["product", "math_verify"])
def test_graders_of_this_environment_accept_one_of_several_references(name):
    grade = Grader(name, "")
    assert missing_packages(name, "") == []
    assert grade("", r"\boxed{\frac{1}{2}}", '["2", "0.5"]') == 1
    assert grade("", r"\boxed{\frac{1}{2}}", '["2", "3"]') == 0
