#!/usr/bin/env bash
# optax 0.2.8, jax 0.10.2 (Python 3.11), CPU.
#
# Expected: a label of -100 is ignored, as in PyTorch and in the collators of Hugging Face, or gives an error
#   or NaN.
# Seen: softmax_cross_entropy_with_integer_labels counts it from the end, as Python does: with a vocabulary
#   of 1000 the loss trains towards token 900. A vocabulary of 50 gives NaN, and so does a label of 1000.
# Who meets it: batches that were made for PyTorch (prompt and padding labelled -100). Tests with a tiny
#   vocabulary show NaN; the real model is trained on one wrong token at each padded place.
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

loss = optax.softmax_cross_entropy_with_integer_labels
label = jnp.array([-100])
grad = jax.grad(lambda logits: loss(logits, label).sum())(jnp.zeros((1, 1000)))[0]
pulled = int(jnp.argmin(grad))
print(f"vocabulary of 1000: loss {loss(jnp.zeros((1, 1000)), label)[0]:.3f}, pulls up token {pulled}")
small = bool(jnp.isnan(loss(jnp.zeros((1, 50)), label))[0])
above = bool(jnp.isnan(loss(jnp.zeros((1, 1000)), jnp.array([1000])))[0])
print(f"vocabulary of 50: NaN {small}; label 1000 of 1000: NaN {above}")
holds = pulled == 900 and float(grad[900]) < -0.99 and small and above

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
