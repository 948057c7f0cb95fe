#!/usr/bin/env bash
# jax 0.10.2, numpy 2.4.6 (Python 3.11), CPU.
#
# Expected: jnp.cumsum widens small integers as jnp.sum and np.cumsum do.
# Seen: jnp.sum of int8 is int32, np.cumsum of int8 is int64, but jnp.cumsum of int8 stays int8 and goes
#   from 127 to -128; uint8 wraps at 256. A boolean mask is widened to int32.
# Who meets it: positions or segment numbers that are the running sum of a mask which was stored as int8 to
#   save memory. All is well up to 127 tokens; then positions are negative.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 ml_dtypes==0.6.0 || exit 2
cd "$dir" || exit 2
JAX_PLATFORMS=cpu venv/bin/python - <<'PYTHON'
import jax.numpy as jnp
import numpy as np

mask = np.ones(300, np.int8)
positions = jnp.cumsum(jnp.asarray(mask))
print("jnp.cumsum:", positions.dtype, positions[125:130], "last", positions[-1])
print("jnp.sum:", jnp.sum(jnp.asarray(mask)).dtype, "np.cumsum:", np.cumsum(mask).dtype)
holds = positions.dtype == jnp.int8 and positions[127] == -128
holds = holds and jnp.sum(jnp.asarray(mask)) == 300 and np.cumsum(mask)[-1] == 300
holds = holds and jnp.cumsum(jnp.asarray(mask, bool))[-1] == 300

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
