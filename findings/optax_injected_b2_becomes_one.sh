#!/usr/bin/env bash
# optax 0.2.8, jax 0.10.2 (Python 3.11), CPU.
#
# Expected: inject_hyperparams only makes an optimizer's settings visible; the updates stay the same.
# Seen: it stores the settings in the type of the parameters. With bfloat16 parameters Adam's b2 = 0.999
#   becomes exactly 1: the second moment stays 0, its bias correction divides 0 by 0, and the first update is
#   NaN. b2 = 0.95 becomes 0.949. Without the wrapper the same optimizer works.
# Who meets it: a run with bfloat16 parameters that wants to log or change the learning rate. Where b2 is
#   smaller, nothing fails and the settings are a bit off. hyperparam_dtype=float32 is the way out.
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
import jax.numpy as jnp
import optax

params = jnp.ones(3, jnp.bfloat16)
grads = jnp.ones(3, jnp.bfloat16)
plain = optax.adam(1e-3)
expected, _ = plain.update(grads, plain.init(params))


def wrapped(params, grads, **kwargs):
    tx = optax.inject_hyperparams(optax.adam, **kwargs)(learning_rate=1e-3)
    update, state = tx.update(grads, tx.init(params))
    return update, float(state.hyperparams["b2"])


update, b2 = wrapped(params, grads)
print(f"plain {expected}; injected {update} with b2 {b2}")
in_float32, b2_float32 = wrapped(params, grads, hyperparam_dtype=jnp.float32)
print(f"with hyperparam_dtype=float32: {in_float32}, b2 {b2_float32:.4f}")
holds = b2 == 1 and bool(jnp.isnan(update).all())
holds = holds and bool(jnp.isfinite(expected).all()) and bool(jnp.isfinite(in_float32).all())

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
