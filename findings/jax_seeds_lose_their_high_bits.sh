#!/usr/bin/env bash
# jax 0.10.2 (Python 3.11), CPU, default settings (no 64-bit mode).
#
# Expected: key(seed) uses all bits of a 64-bit seed, or refuses a seed that it cannot hold.
# Seen: only the low 32 bits count: the keys of 5, 5 + 2**32 and 5 + 7 * 2**32 are equal, and -1 is
#   2**32 - 1. Nothing is said. fold_in, in contrast, raises an error for a number out of range.
# Who meets it: seeds that put a run or a process number in the high half (`seed + (rank << 32)`), and seeds
#   from a hash or a clock that are cut: all ranks then sample the same rollouts.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 ml_dtypes==0.6.0 || exit 2
cd "$dir" || exit 2
JAX_PLATFORMS=cpu venv/bin/python - <<'PYTHON'
import jax

data = lambda seed: tuple(jax.random.key_data(jax.random.key(seed)).tolist())
keys = {seed: data(seed) for seed in (5, 5 + 2**32, 5 + 7 * 2**32, -1, 2**32 - 1)}
for seed, key in keys.items():
    print(f"seed {seed}: key {key}")
try:
    jax.random.fold_in(jax.random.key(0), 2**32 + 1)
    refused = False
except OverflowError as error:
    refused = True
    print("fold_in:", error)
holds = refused and len({keys[s] for s in (5, 5 + 2**32, 5 + 7 * 2**32)}) == 1
holds = holds and keys[-1] == keys[2**32 - 1]

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
