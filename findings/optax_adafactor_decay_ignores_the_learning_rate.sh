#!/usr/bin/env bash
# optax 0.2.8, jax 0.10.2 (Python 3.11), CPU.
#
# Expected: adafactor(learning_rate, weight_decay_rate=0.1) decays the weights by learning_rate * 0.1 per update,
#   as adamw, lion and adan of the same library do.
# Seen: it takes away a tenth of each weight per update, whatever the learning rate. With learning rate 0.001 and
#   no gradient a weight of 1 is 0.349 after ten updates (adamw: 0.999). With learning rate 0, as at the start of
#   a warm-up or the end of a decay, it is 0.349 as well.
# Who meets it: who replaces adamw by adafactor to save memory and keeps the number: the model is gone within some
#   ten updates. With a small number the decay does not follow the schedule.
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


def after_ten(tx):
    params = {"kernel": jnp.ones((2, 2))}
    state = tx.init(params)
    for _ in range(10):
        updates, state = tx.update({"kernel": jnp.zeros((2, 2))}, state, params)
        params = optax.apply_updates(params, updates)
    return round(float(params["kernel"][0, 0]), 4)


others = {
    "adamw": optax.adamw,
    "lion": optax.lion,
    "adan": optax.adan,
}
weights = {name: after_ten(make(1e-3, weight_decay=0.1)) for name, make in others.items()}
adafactor = after_ten(optax.adafactor(1e-3, weight_decay_rate=0.1))
at_zero = after_ten(optax.adafactor(lambda step: 0.0, weight_decay_rate=0.1))
print(f"a weight of 1 after ten updates without gradient: {weights}, adafactor {adafactor}")
print(f"adafactor with learning rate 0: {at_zero}")
holds = all(0.998 < weight < 1 for weight in weights.values())
holds = holds and adafactor == at_zero == round(0.9**10, 4)

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
