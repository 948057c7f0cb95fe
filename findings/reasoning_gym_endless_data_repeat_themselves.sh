#!/usr/bin/env bash
# reasoning-gym 0.1.25 (Python 3.11).
#
# Expected: ReseedingDataset ("infinite by reseeding") gives new problems for ever.
# Seen: chunk c is made with seed s + c, and item i of a seed with seed + i, so each chunk is the one before
#   moved by one item. 5000 problems in chunks of 500 hold 509 different ones at most, each nearly ten times;
#   the 500 problems of a chunk are seen again in the next, but for one.
# Who meets it: a run that takes its data from the wrapper trains about 500 problems again and again, and
#   its reward rises by heart.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile reasoning-gym==0.1.25 || exit 2
cd "$dir" || exit 2
venv/bin/python - <<'PYTHON'
import itertools

import reasoning_gym
from reasoning_gym.dataset import ReseedingDataset

endless = ReseedingDataset(reasoning_gym.create_dataset("chain_sum", seed=1), chunk_size=500)
questions = [item["question"] for item in itertools.islice(endless, 5000)]
different = len(set(questions))
moved = all(questions[i + 1] == questions[i + 500] for i in range(4499) if i % 500 != 499)
plain = reasoning_gym.create_dataset("chain_sum", seed=1, size=5000)
possible = len({item["question"] for item in plain})
print(f"{different} different problems among 5000; one data set of that size has {possible}")
holds = different <= 509 and moved and possible > 4000

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
