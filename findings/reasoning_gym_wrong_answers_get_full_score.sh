#!/usr/bin/env bash
# reasoning-gym 0.1.25 (Python 3.11).
#
# Expected: score_answer is 1 for right answers only.
# Seen: game_of_life_halting compares bool(answer) with bool(entry["answer"]), and both are texts, so any text
#   that is not empty gets 1: "True", "False", "I do not know". coin_flip compares the leading characters, up to
#   the shorter of the two, so "0" gets 1 for each probability that begins with "0." (nine of ten problems).
# Who meets it: reinforcement learning on these tasks (or on a composite of all tasks) finds out at once: the
#   reward rises to 1 and nothing is learnt.
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

halting = reasoning_gym.create_dataset("game_of_life_halting", seed=1, size=40)
wrong = {"True": "False", "False": "True"}
scores = [halting.score_answer(wrong[item["answer"]], item) for item in halting]
scores += [halting.score_answer("I do not know", item) for item in halting]
print("game_of_life_halting: the opposite answer and no answer get", set(scores))

coin = reasoning_gym.create_dataset("coin_flip", seed=1, size=200)
positive = [item for item in coin if float(item["answer"]) > 1e-3]
zero = sum(coin.score_answer("0", item) == 1 for item in positive)
print(f"coin_flip: 0 gets the full score {zero} times of {len(positive)}, all with answers above 0.001")
holds = set(scores) == {1.0} and zero > 0.8 * len(positive)

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
