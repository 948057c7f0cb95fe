#!/usr/bin/env bash
# jax 0.10.2, jaxlib 0.10.2, libtpu 0.0.42.1, numpy 2.4.6 (Python 3.11, no TPU: compiled ahead of time).
#
# Expected: an array that is sharded over all chips of a slice is replicated by an all-gather.
# Seen: so on v5p:2x4x4. On v5p:4x4x4, and on v5p:8x8x8, the compiled program puts each shard into an array of zeros
#   (dynamic-update-slice) and adds these up: an all-reduce, which by a ring sends twice the bytes of an all-gather.
#   It is an all-gather again if half of the chips hold the same shard, and there are three of them if the program
#   gathers one axis of the torus after the other.
# Who meets it: FSDP over a v5p slice of whole cubes (64 chips or more) without a second mesh axis.
#
# Exit status: 0 the behaviour is still there, 1 it changed, 2 the packages could not be installed.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv" || exit 2
"$dir/venv/bin/pip" install -q --no-compile jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.42.1 numpy==2.4.6 || exit 2
cd "$dir" || exit 2
export JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1
export TPU_ACCELERATOR_TYPE=v5litepod-1 TPU_WORKER_HOSTNAMES=localhost  # no questions about a machine with TPUs
venv/bin/python - <<'PYTHON'
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

COLLECTIVE = re.compile(r" (all-gather|all-reduce|collective-permute)(?:-start)?\(")


def compiled(topology, sizes, spec, results):
    """The collectives of a program whose argument has `spec`, and then each of `results`."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    placed = mesh_utils.create_device_mesh(tuple(sizes.values()), devices)
    mesh = Mesh(placed, tuple(sizes))
    shardings = [NamedSharding(mesh, PartitionSpec(*result)) for result in results]

    def gather(x):
        for sharding in shardings:
            x = jax.lax.with_sharding_constraint(x, sharding)
        return x

    sharded = NamedSharding(mesh, PartitionSpec(*spec))
    x = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16, sharding=sharded)
    text = jax.jit(gather, out_shardings=shardings[-1]).lower(x).compile().as_text()
    return dict(Counter(COLLECTIVE.findall(text)))


torus = dict(x=4, y=4, z=4)
seen = {
    "v5p:2x4x4, all 32 chips": compiled("v5p:2x4x4", dict(data=32), ("data",), [()]),
    "v5p:4x4x4, all 64 chips": compiled("v5p:4x4x4", dict(data=64), ("data",), [()]),
    "v5p:8x8x8, all 512 chips": compiled("v5p:8x8x8", dict(data=512), ("data",), [()]),
    "v5p:4x4x4, 16 of 64 chips": compiled("v5p:4x4x4", dict(data=16, model=4), ("data",), [()]),
    "v5p:4x4x4, axis after axis": compiled(
        "v5p:4x4x4", torus, (("x", "y", "z"),), [(("x", "y"),), ("x",), ()]
    ),
}
for name, result in seen.items():
    print(f"{name}: {result}")
one, reduce = {"all-gather": 1}, {"all-reduce": 1}
holds = list(seen.values()) == [one, reduce, reduce, one, {"all-gather": 3}]
print("still so" if holds else "changed")
raise SystemExit(0 if holds else 1)
PYTHON
