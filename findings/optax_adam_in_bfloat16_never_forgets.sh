#!/usr/bin/env bash
# optax 0.2.8, jax 0.10.2 (Python 3.11), CPU.
#
# Expected: Adam's second moment with b2 = 0.999 follows the gradients within some thousand steps, whatever
#   the type, with a rounding error of a percent.
# Seen: with bfloat16 gradients and parameters it can't shrink at all, because 0.999 of a bfloat16 number rounds
#   back to that number. 20 gradients of 1, then 5000 of 0.01: the update's size is 0.07, and in float32 it is
#   0.65. mu_dtype does not help: it is of the first moment, and the second one has no such setting.
# Who meets it: bfloat16 parameters without a float32 copy. A spike in the gradients of the first steps
#   shortens all later steps for the rest of the run.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 \
  ml_dtypes==0.6.0 optax==0.2.8 || exit 2
cd "$dir" || exit 2
JAX_PLATFORMS=cpu venv/bin/python - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax


def run(dtype, **kwargs):
    tx = optax.scale_by_adam(b2=0.999, **kwargs)
    scales = jnp.concatenate([jnp.ones(20), jnp.full(5000, 0.01)]).astype(dtype)

    def step(state, scale):
        update, state = tx.update(jnp.full(1, scale), state)
        return state, state.nu

    state, seconds = jax.lax.scan(step, tx.init(jnp.ones(1, dtype)), scales)
    update, _ = tx.update(jnp.full(1, 0.01, dtype), state)
    return float(seconds[19, 0]), float(seconds[-1, 0]), float(update[0])


results = {"float32": run(jnp.float32), "bfloat16": run(jnp.bfloat16)}
results["bfloat16, mu_dtype float32"] = run(jnp.bfloat16, mu_dtype=jnp.float32)
for name, (before, after, update) in results.items():
    print(f"{name}: second moment {before:.5f}, 5000 steps later {after:.5f}, update {update:.3f}")
holds = results["float32"][2] > 0.5
for name in ("bfloat16", "bfloat16, mu_dtype float32"):
    before, after, update = results[name]
    holds = holds and after == before and update < 0.15

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
