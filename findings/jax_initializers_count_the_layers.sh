#!/usr/bin/env bash
# jax 0.10.2 (Python 3.11), CPU.
#
# Expected: an initializer for a stack of kernels [layers, in, out] (for a scan over layers, or K critics) gives
#   each kernel what it would get alone.
# Seen: variance_scaling (lecun_normal, he_normal, xavier_...) counts every leading axis into the fan-in, so 16
#   stacked kernels have a quarter of the standard deviation. orthogonal() makes the whole stack one matrix: no
#   kernel in it is orthogonal, and values are smaller.
# Who meets it: parameters that are made as one array. The net starts with nearly no signal after some layers, and
#   a stack of K value heads is smaller the larger K is. vmap over keys is right; batch_axis=(0,) mends the fan-in.
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

make = jax.nn.initializers
key = jax.random.key(0)
alone = make.lecun_normal()(key, (256, 256))
stack = make.lecun_normal()(key, (16, 256, 256))
mapped = jax.vmap(lambda k: make.lecun_normal()(k, (256, 256)))(jax.random.split(key, 16))
batch = make.lecun_normal(batch_axis=(0,))(key, (16, 256, 256))
ratios = [float(x.std() / alone.std()) for x in (stack, mapped, batch)]
print("standard deviation next to one kernel: stack {:.3f}, vmap {:.3f}, batch_axis {:.3f}".format(*ratios))
kernels = make.orthogonal()(key, (16, 8, 8))
products = jnp.einsum("kij,klj->kil", kernels, kernels)
error = float(jnp.abs(products - jnp.eye(8)).max(axis=(1, 2)).min())
print(f"orthogonal: the best kernel of the stack is off by {error:.2f}")
holds = abs(ratios[0] - 0.25) < 0.01 and abs(ratios[1] - 1) < 0.02 and abs(ratios[2] - 1) < 0.02
holds = holds and error > 0.2

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
