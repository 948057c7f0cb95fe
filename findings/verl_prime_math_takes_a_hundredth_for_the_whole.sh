#!/usr/bin/env bash
# verl 0.9.1, sympy 1.14.0, pylatexenc 2.11 (Python 3.11).
#
# Expected: prime_math, which default_compute_score takes for all numina_* data, calls 5 wrong for the reference
#   500, and 123456 wrong for 123457.
# Seen: each number is compared with the reference, with its hundredth and with its hundredfold, percent sign or
#   not: 5 and 50000 are right for 500, and (100,200) for (1,2). Numbers also count as equal up to a ten
#   thousandth, integers too: 10001 is right for 10000. default_compute_score gives 1.0 for all of these.
# Who meets it: reinforcement learning on problems with large integers or amounts of money. An error of a unit
#   (cents, centimetres, percent) or in the last digit is rewarded like the right answer.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile numpy==2.4.6 sympy==1.14.0 pylatexenc==2.11 || exit 2
"$dir/venv/bin/pip" install -q --no-compile --no-deps verl==0.9.1 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import importlib
import sys
import sysconfig
import types

# The packages around the grader import PyTorch, and the grader does not use it.
root = sysconfig.get_path("purelib")
for name in ("verl", "verl.utils"):
    package = types.ModuleType(name)
    package.__path__ = [f"{root}/{name.replace('.', '/')}"]
    sys.modules[name] = package
sys.modules["verl.utils.metric"] = types.SimpleNamespace(Metric=None)
sys.modules["verl.utils.import_utils"] = types.SimpleNamespace(
    deprecated=lambda replacement: lambda function: function
)
score = importlib.import_module("verl.utils.reward_score").default_compute_score

cases = [  # reference, answer, score
    ("500", "500", 1),
    ("500", "501", 0),
    ("500", "5", 1),
    ("500", "50000", 1),
    ("72", "0.72", 1),
    ("(1,2)", "(100,200)", 1),
    ("10000", "10001", 1),
    ("123457", "123456", 1),
    ("2025", "2024", 0),
]
holds = True
for reference, answer, expected in cases:
    got = score("numina_olympiads", rf"Thus the result is $\boxed{{{answer}}}$.", reference)
    print(f"reference {reference}, answer {answer}: {got}")
    holds = holds and got == expected

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
