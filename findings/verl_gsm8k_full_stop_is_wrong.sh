#!/usr/bin/env bash
# verl 0.9.1 (Python 3.11).
#
# Expected: the reward for GSM8K compares numbers; "flexible" takes more than "strict".
# Seen: the number is taken with dots and commas and compared as text. "#### 72." gets 0, in both methods, and
#   so do "#### 72.0" and the sentence "The answer is 72." in the flexible one. "#### 1,000" is right when strict
#   and wrong when flexible, because only the strict method drops the comma.
# Who meets it: a model that ends its sentence with a full stop is punished for it. It learns the form, which
#   looks like learning to calculate, and numbers differ from those of other graders.
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


score = load("verl/utils/reward_score/gsm8k.py").compute_score
cases = {
    "#### 72": (1, 1),
    "#### 72.": (0, 0),
    "#### 72.0": (0, 0),
    "The answer is 72.": (0, 0),
    "The answer is 72": (0, 1),
}
holds = True
for text, expected in cases.items():
    got = tuple(score(text, "72", method=method) for method in ("strict", "flexible"))
    print(f"{text!r}: strict {got[0]}, flexible {got[1]}")
    holds = holds and got == expected
thousand = tuple(score("#### 1,000", "1000", method=method) for method in ("strict", "flexible"))
print(f"'#### 1,000': strict {thousand[0]}, flexible {thousand[1]}")
holds = holds and thousand == (1, 0)

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
