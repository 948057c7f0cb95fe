#!/usr/bin/env bash
# jax 0.10.2 (Python 3.11), CPU.
#
# Expected: fold_in(key, i) and split(key) are two ways to get new keys that never meet.
# Seen: they are the same keys: split(key, n)[i] is fold_in(key, i), for every n and i < n. So
#   split(key, 2) is also the beginning of split(key, 100).
# Who meets it: a loop that does `key, subkey = split(key)` and elsewhere fold_in(key, step) with the same
#   key: at step 1 the two draw the same numbers. Samples of a rollout and dropout, or two processes told
#   apart by fold_in(key, process_index), are then equal where they should be independent.
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
import jax.numpy as jnp

data = lambda key: jax.random.key_data(key).tolist()
equal = []
for seed in (0, 7):
    key = jax.random.key(seed)
    for count in (2, 9):
        keys = jax.random.split(key, count)
        equal += [data(keys[i]) == data(jax.random.fold_in(key, i)) for i in range(count)]
print(f"{sum(equal)} of {len(equal)} keys of split are those of fold_in")
key = jax.random.key(7)
_, subkey = jax.random.split(key)
same_noise = jnp.array_equal(
    jax.random.normal(subkey, (5,)), jax.random.normal(jax.random.fold_in(key, 1), (5,))
)
print("noise of split's second key and of fold_in(key, 1) is equal:", bool(same_noise))
holds = all(equal) and bool(same_noise)

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
