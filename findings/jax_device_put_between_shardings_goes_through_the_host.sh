#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, numpy 2.4.6 (Python 3.11, eight simulated CPU devices).
#
# Expected: jax.device_put of a sharded array to another sharding of the same devices sends the shards from device
#   to device, as a compiled identity with out_shardings does.
# Seen: in one process the whole array is read to the host and sent to the devices again. A guard against
#   host-to-device transfers refuses it. If only the order of the devices differs, device_put compiles a program
#   instead, and the same guard lets it pass.
# Who meets it: one host with several chips that moves parameters from a mesh for training to one for sampling.
#   jax.jit(lambda x: x, out_shardings=new) stays on the devices.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cd "$dir" || exit 2
JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 venv/bin/python - <<'PYTHON'
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

auto = (AxisType.Auto, AxisType.Auto)
devices = np.array(jax.devices())
train = Mesh(devices.reshape(4, 2), ("data", "model"), axis_types=auto)
sample = Mesh(devices.reshape(2, 4), ("data", "model"), axis_types=auto)
other_order = Mesh(devices[::-1].reshape(2, 4), ("data", "model"), axis_types=auto)
spec = PartitionSpec("data", "model")
full = np.arange(64.0, dtype=np.float32).reshape(8, 8)


def passes(move):
    x = jax.device_put(full, NamedSharding(train, spec))
    jax.block_until_ready(x)
    try:
        with jax.transfer_guard_host_to_device("disallow_explicit"):
            y = jax.block_until_ready(move(x))
    except Exception as error:
        return str(error).split(":")[1].strip()
    assert (np.asarray(y) == full).all()
    return "passes"


def put(mesh):
    return lambda x: jax.device_put(x, NamedSharding(mesh, spec))


seen = {
    "device_put, same devices in the same order": passes(put(sample)),
    "device_put, same devices in another order": passes(put(other_order)),
    "jit of the identity, same order": passes(
        jax.jit(lambda x: x, out_shardings=NamedSharding(sample, spec))
    ),
}
for name, result in seen.items():
    print(f"{name}: {result}")
holds = list(seen.values()) == ["Disallowed host-to-device transfer", "passes", "passes"]
print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
