#!/usr/bin/env bash
# optax 0.2.8, jax 0.10.2 (Python 3.11), CPU.
#
# Expected: the norm of bfloat16 gradients is right to about 0.4 percent, since sums within an array are made in
#   float32.
# Seen: the squares of the leaves are added in bfloat16. With many leaves of like size the sum stops growing:
#   512 leaves of norm 1 have norm 16, not 22.6, and 4096 of them still 16, not 64. clip_by_global_norm(1)
#   then leaves a norm of 4.
# Who meets it: training with bfloat16 gradients and unstacked layers, some hundred arrays: the logged norm is
#   too small and the clip is too weak. Casting the gradients to float32 first gives the right norm.
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

norms = {}
for count in (16, 512, 4096):
    grads = {str(i): jnp.ones((1,), jnp.bfloat16) for i in range(count)}
    norms[count] = float(optax.global_norm(grads))
    print(f"{count} leaves of norm 1: {norms[count]}, should be {count**0.5:.1f}")
clipped, _ = optax.clip_by_global_norm(1.0).update(grads, optax.EmptyState())
clipped = jax.tree.map(lambda x: x.astype(jnp.float32), clipped)
left = float(optax.global_norm(clipped))
print(f"norm after a clip to 1: {left}")
holds = norms == {16: 4.0, 512: 16.0, 4096: 16.0} and left == 4.0

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
