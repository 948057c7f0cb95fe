#!/usr/bin/env bash
# lm-eval 0.4.13 (Python 3.11).
#
# Expected: the task bigbench_dyck_languages_generate_until asks for the brackets that close a sequence, and other
#   brackets than the reference are wrong.
# Seen: the template of all bigbench_*_generate_until tasks sets ignore_punctuation, which deletes all ASCII
#   punctuation from both texts. Of the reference "] ) }" two blanks are left, so "> > >" and ". . ." are right,
#   and for the reference "]" an empty answer is. In tasks with numbers the minus sign and the decimal point go:
#   3 is right for -3, and 1.5 for 15. The tasks of mgsm have the same setting: -18 and 1.8 are right for 18.
# Who meets it: a model that closes the right number of brackets, of any kind, gets full marks, and a gain between
#   two checkpoints need not be one. Tasks whose answers are words are as they should be.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile numpy==2.4.6 PyYAML==6.0.4 || exit 2
"$dir/venv/bin/pip" install -q --no-compile --no-deps lm_eval==0.4.13 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import pathlib
import sys
import sysconfig
import types

import yaml

# lm_eval.api.metrics imports sacrebleu for metrics that this task does not have.
sys.modules["sacrebleu"] = types.ModuleType("sacrebleu")
from lm_eval.api.metrics import exact_match_fn

tasks = pathlib.Path(sysconfig.get_path("purelib")) / "lm_eval" / "tasks"


def grader(path):
    """The task's metric with the settings of its files."""
    task = yaml.safe_load((tasks / path).read_text())
    if "include" in task:
        template = (tasks / path).parent / task["include"]
        task = yaml.safe_load(template.read_text()) | task
    (metric,) = task["metric_list"]
    assert metric["metric"] == "exact_match"
    settings = {key: value for key, value in metric.items() if key.startswith("ignore")}

    def grade(answer, reference):
        return float(exact_match_fn(predictions=[answer], references=[reference], **settings)["exact_match"])

    return grade


cases = {
    "bigbench/generate_until/dyck_languages.yaml": [
        ("] ) }", "] ) }", 1),
        ("] ) }", "> > >", 1),
        ("] ) }", ". . .", 1),
        ("] ) }", "] )", 0),
        ("]", "", 1),
    ],
    "bigbench/generate_until/arithmetic.yaml": [("-3", "3", 1), ("15", "1.5", 1), ("15", "16", 0)],
    "mgsm/direct/direct_yaml": [("18", "-18", 1), ("18", "1.8", 1), ("18", "19", 0)],
}
holds = True
for path, answers in cases.items():
    grade = grader(path)
    for reference, answer, expected in answers:
        got = grade(answer, reference)
        print(f"{path}: reference {reference!r}, answer {answer!r}: {got}")
        holds = holds and got == expected

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
