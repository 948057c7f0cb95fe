"""A decoding kernel's form on a mesh [data 2, model 2] against the same without: prints the largest
difference, of each form. Run by models/test_decode_kernels.py.

Of the kernels only their contract is there, written with XLA: an interpreted kernel waits for ever
where there are more devices than cores.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import paged_attention

from asyppo_jax.config import MeshConfig
from asyppo_jax.models.attention.attend import attend
from asyppo_jax.models.attention.decode_attention import BACKENDS
from asyppo_jax.models.attention.decode_kernels import attend_to_pages, attend_with_cudnn
from asyppo_jax.runtime.sharding import make_mesh

ROWS, HEADS, KV, WIDTH, LENGTH = 4, 4, 2, 128, 300


def attend_to_listed_pages(queries, key_pages, value_pages, lengths, pages, **_):
    """What jax's `paged_attention` computes."""
    keys, values = (
        jnp.take(x, pages, axis=1)  # [KV, R, pages, page, d]
        .reshape(x.shape[0], len(pages), -1, x.shape[-1])
        .transpose(1, 2, 0, 3)
        for x in (key_pages, value_pages)
    )
    visible = jnp.arange(keys.shape[1])[None, None] < lengths[:, None, None]
    scaled = queries[:, None] * math.sqrt(queries.shape[-1])
    return attend(scaled, keys, values, visible)[:, 0]


def main(form: str) -> None:
    def random(*shape, seed):
        return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)

    lengths = jnp.array([0, 17, 256, LENGTH - 1])
    prompts = [random(2, ROWS, LENGTH, KV, WIDTH, seed=s) for s in (0, 1)]
    new = [random(ROWS, 1, n, WIDTH, seed=2 + i) for i, n in enumerate((HEADS, KV, KV))]

    def run(keys, values, new):
        of_token: Any = (*new, lengths, jnp.max(lengths))
        if form == "pages":
            cache = BACKENDS["pages"].make(keys, values, LENGTH)
            return attend_to_pages(cache, jnp.int32(1), *of_token)
        attend = partial(attend_with_cudnn, implementation="xla")
        return attend(BACKENDS["layers"].make(keys, values, LENGTH)[1], *of_token)

    alone = jax.jit(run)(*prompts, new)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, model=2))):
        spread = jax.jit(run)(*prompts, new)
    assert all(len(x.sharding.device_set) == 4 for x in jax.tree.leaves(spread))
    assert not any(x.sharding.is_fully_replicated for x in jax.tree.leaves(spread))
    pairs = zip(*map(jax.tree.leaves, jax.device_get((alone, spread))), strict=True)
    print(max(float(abs(a - b).max()) for a, b in pairs))


if __name__ == "__main__":
    paged_attention.paged_attention = attend_to_listed_pages
    for name in ("pages", "layers"):
        main(name)
