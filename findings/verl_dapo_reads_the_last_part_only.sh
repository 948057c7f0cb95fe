#!/usr/bin/env bash
# verl 0.9.1 (Python 3.11).
#
# Expected: math_dapo (data sources math_dapo and aime...) compares the whole answer with the whole reference.
# Seen: what stands before the last "=" is dropped on both sides, of several formulas in dollars the first
#   counts alone, and commas between digits vanish. So "x = 99, y = 4" is right for "x = 3, y = 4", "$3$ and $5$"
#   for "$3$ and $7$", and 123 for the list 1, 2, 3. A right "a + b" is wrong for "a+b", since "a " is dropped as
#   an article. Without "Answer:" a box counts only if it begins within the last 100 characters.
# Who meets it: references with several values or letters. The reward is +1 for wrong answers and -1 for right
#   ones, and no log shows it.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile --no-deps verl==0.9.1 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import importlib.util
import sysconfig


def load(path):  # alone, because the package itself imports PyTorch
    full = f"{sysconfig.get_path('purelib')}/{path}"
    spec = importlib.util.spec_from_file_location("grader", full)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compute_score = load("verl/utils/reward_score/math_dapo.py").compute_score
cases = [  # answer, reference, is it called right?
    ("x = 3, y = 4", "x = 3, y = 4", True),
    ("x = 99, y = 4", "x = 3, y = 4", True),
    ("$3$ and $5$", "$3$ and $7$", True),
    ("123", "1, 2, 3", True),
    ("a + b", "a+b", False),
    ("b + c", "b+c", True),
]
holds = True
for answer, reference, expected in cases:
    got = compute_score(f"Answer: {answer}", reference)["acc"]
    print(f"{answer!r} for {reference!r}: {'right' if got else 'wrong'}")
    holds = holds and got == expected
for sentences, expected in ((2, True), (5, False)):
    text = r"So it is \boxed{12}." + " This is the value." * sentences
    got = compute_score(text, "12")["acc"]
    print(f"a box and {sentences} short sentences: {'right' if got else 'wrong'}")
    holds = holds and got == expected

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
