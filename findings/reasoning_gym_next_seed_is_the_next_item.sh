#!/usr/bin/env bash
# reasoning-gym 0.1.25 (Python 3.11).
#
# Expected: data sets with other seeds hold other problems.
# Seen: item i of seed s is made from s + i, in all tasks but three of those that can be made by default (acre,
#   gsm_symbolic, list_functions). Seeds 1 and 2 share all items but one: item i + 1 of seed 1 is item i of
#   seed 2.
# Who meets it: training on seed 42 and evaluating on seed 43: the held-out set is in the training set. Three
#   "independent" seeds train on the same problems, one place apart. Seeds must be further apart than the size.
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
from reasoning_gym.factory import DATASETS

shifted, other = [], []
for task in sorted(set(DATASETS) - {"composite"}):
    one, two = (reasoning_gym.create_dataset(task, seed=seed, size=6) for seed in (1, 2))
    pairs = [(one[i + 1]["question"], two[i]["question"]) for i in range(5)]
    (shifted if all(a == b for a, b in pairs) else other).append(task)
print(f"{len(shifted)} tasks are shifted by one item, not: {other}")
train, held_out = (
    {item["question"] for item in reasoning_gym.create_dataset("chain_sum", seed=seed, size=size)}
    for seed, size in ((42, 2000), (43, 200))
)
seen = len(held_out & train) / len(held_out)
print(f"of the problems of seed 43, {seen:.0%} are among those of seed 42")
holds = other == ["acre", "gsm_symbolic", "list_functions"] and seen == 1

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
