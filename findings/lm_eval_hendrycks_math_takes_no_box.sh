#!/usr/bin/env bash
# lm-eval 0.4.13 (Python 3.11).
#
# Expected: the task hendrycks_math finds an answer in \boxed{}, as the data set's own solutions have it.
# Seen: only the reference is taken out of its box. Of the model's text everything between the first and the last
#   dollar sign is the answer (or all of it, with less than two), and it is compared as text: "\boxed{5}" and
#   "$\boxed{5}$" are wrong for 5, and so is any solution with two formulas. "5" and "The answer is $5$." are
#   right.
# Who meets it: a model that reasons before it answers gets nearly 0 percent, and a base model that answers "$5$"
#   gets more: the order of two models can be reversed. The task minerva_math reads other texts.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile --no-deps lm_eval==0.4.13 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import importlib.util
import sys
import sysconfig
import types

# The file imports `datasets` for the name of one type.
sys.modules["datasets"] = types.SimpleNamespace(Dataset=None)
path = f"{sysconfig.get_path('purelib')}/lm_eval/tasks/hendrycks_math/utils.py"
spec = importlib.util.spec_from_file_location("grader", path)
grader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(grader)

doc = {"solution": r"We solve it, and $x = \boxed{5}$."}
cases = {
    "5": 1,
    "The answer is $5$.": 1,
    r"\boxed{5}": 0,
    r"$\boxed{5}$": 0,
    r"From $x + 1 = 6$ follows $x = \boxed{5}$.": 0,
    "As $6 - 1 = 5$, the answer is $5$.": 0,
}
holds = True
for text, expected in cases.items():
    got = grader.process_results(doc, [text])["exact_match"]
    print(f"{text!r}: {got}")
    holds = holds and got == expected

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
