#!/usr/bin/env bash
# reasoning-gym 0.1.25 (Python 3.11).
#
# Expected: a number is right or wrong; partial credit goes to text around the right answer.
# Seen: the default score_answer, which 33 tasks use (products, chain_sum and others have the same rule in
#   their own), looks for the right answer as a piece of the given one and pays len(right) / len(given). Digits
#   count like text: where 936 is right, 9360 gets 0.75 and 935 gets 0. "The answer is 936." gets 0.17.
# Who meets it: partial credit as a reward for numbers (lcm, gcd, products, letter_counting, basic_arithmetic).
#   A wrong number with one more digit is worth more than twice the right one in a sentence.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile reasoning-gym==0.1.25 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import reasoning_gym

results = []
for task in ("lcm", "products", "leg_counting"):
    data = reasoning_gym.create_dataset(task, seed=1, size=20)
    item = next(item for item in data if len(item["answer"].lstrip("-")) >= 3)
    right = item["answer"]
    near = str(int(right) - 1)
    given = {"longer": right + "0", "near": near, "sentence": f"The answer is {right}."}
    scores = {name: round(data.score_answer(text, item), 3) for name, text in given.items()}
    results.append((len(right) / (len(right) + 1), scores))
    print(task, right, {text: scores[name] for name, text in given.items()})
holds = all(
    scores["longer"] == round(share, 3) and scores["near"] == 0 and scores["sentence"] < share / 2
    for share, scores in results
)

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
