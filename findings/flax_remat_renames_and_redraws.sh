#!/usr/bin/env bash
# flax 0.12.8, jax 0.10.2 (Python 3.11), CPU.
#
# Expected: nn.remat changes memory and time, not parameters: a flag that turns it on for training can be off
#   for sampling, and old checkpoints load.
# Seen: a module without a name is called Checkpoint... (CheckpointDense_0 for Dense_0), so the tree of
#   parameters is another one. As initial values are drawn from a module's path, the same seed also gives other
#   weights. With name="..." both are the same with and without remat.
# Who meets it: two runs that should differ in memory only start from other weights, and a checkpoint of one
#   doesn't load in the other.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 \
  ml_dtypes==0.6.0 optax==0.2.8 flax==0.12.8 || exit 2
cd "$dir" || exit 2
JAX_PLATFORMS=cpu venv/bin/python - <<'PYTHON'
import flax.linen as nn
import jax
import jax.numpy as jnp


class Model(nn.Module):
    remat: bool
    name_of_layer: str | None = None

    @nn.compact
    def __call__(self, x):
        layer = nn.remat(nn.Dense) if self.remat else nn.Dense
        return layer(4, name=self.name_of_layer)(x)


def init(*settings):
    return Model(*settings).init(jax.random.key(0), jnp.ones((1, 4)))["params"]


plain, remat = init(False), init(True)
print("without remat:", list(plain), "with remat:", list(remat))
weights = [next(iter(params.values()))["kernel"] for params in (plain, remat)]
same_weights = bool(jnp.array_equal(*weights))
print("same initial weights:", same_weights)
named = [init(remat, "layer")["layer"]["kernel"] for remat in (False, True)]
holds = list(plain) == ["Dense_0"] and list(remat) == ["CheckpointDense_0"] and not same_weights
holds = holds and bool(jnp.array_equal(*named))

print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
