#!/usr/bin/env bash
# trl 1.16.0, math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0 (Python 3.11).
#
# Expected: accuracy_reward reads a reference without dollars, as in its own documentation (\frac{1}{3}).
# Seen: it gives the bare text to math_verify.parse, which finds no formula in it and takes a number out of it: the
#   last or the first, as the case may be. For the reference 2\sqrt{3} the answer 2 gets 1.0 and 2\sqrt{3} gets
#   0.0; the same for 3n (3), 4x^2 - 1 (1), 2^{10} (2) and (-\infty, 3) (3). \sqrt{3} gives None (skipped). A
#   fraction is read, so the example works. In dollars all are right.
# Who meets it: data sets whose column holds bare LaTeX, which most do. The policy is paid for wrong answers.
#   The same holds for math_verify.parse by itself.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
  antlr4-python3-runtime==4.13.2 sympy==1.14.0 packaging==26.3 || exit 2
"$dir/venv/bin/pip" install -q --no-compile --no-compile --no-deps trl==1.16.0 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
from trl.rewards import accuracy_reward


def reward(reference, answer):
    message = {"role": "assistant", "content": rf"The answer is \boxed{{{answer}}}."}
    return accuracy_reward([[message]], [reference])[0]


cases = {r"2\sqrt{3}": "2", "3n": "3", "4x^2 - 1": "1", "2^{10}": "2", r"(-\infty, 3)": "3"}
holds = True
for reference, wrong in cases.items():
    bare = reward(reference, reference), reward(reference, wrong)
    dollars = reward(f"${reference}$", reference), reward(f"${reference}$", wrong)
    print(f"{reference}: the same {bare[0]}, {wrong} {bare[1]}; in dollars {dollars[0]} and {dollars[1]}")
    holds = holds and bare == (0, 1) and dollars == (1, 0)
third = reward(r"\frac{1}{3}", r"\frac{1}{3}")
root = reward(r"\sqrt{3}", r"\sqrt{3}")
print(rf"\frac{{1}}{{3}}: {third}, \sqrt{{3}}: {root}")
holds = holds and third == 1 and root is None

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
