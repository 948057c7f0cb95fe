"""What this machine can do, measured: matrix products of the model's own shapes, and reads."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from asyppo_jax.models.config import ModelConfig

_READ_BYTES, _READ_BYTES_ON_CPU = 4 * 2**30, 512 * 2**20  # beyond any cache
_CALLS, _CALLS_ON_CPU = 20, 1  # in a row: so many that the time of starting one does not count
_REPEATS = 5


class DataSheet(NamedTuple):
    """What a card's maker says of it."""

    gflops: float  # dense products in bfloat16, 10⁹ a second
    gigabytes: float  # of its memory, 10⁹ bytes a second


# NVIDIA's data sheets of the SXM parts, by the device's own name.
DATA_SHEETS = {
    "NVIDIA H100 80GB HBM3": DataSheet(989_400, 3_350),
    "NVIDIA H200": DataSheet(989_400, 4_800),
}


def least_seconds(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    """The least time of a call, after one that compiles; of an accelerator's, of many in a row."""
    calls = _CALLS_ON_CPU if jax.default_backend() == "cpu" else _CALLS
    out = jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            out = function(*arguments)
        jax.block_until_ready(out)
        times.append((time.perf_counter() - start) / calls)
    return min(times)


def gemm_gflops(config: ModelConfig, rows: int, dtype: str = "float32") -> float:
    """The best rate, in 10⁹ FLOP/s, of `rows` tokens through one matrix of the model.

    Tried are the MLP's and the head's matrices and the product of their weight gradient: the limit
    is what the library can do on these shapes, not what a data sheet says.
    """
    width, mlp = config.embed_dim, config.mlp_dim
    shapes = [(rows, width, mlp), (rows, mlp, width), (mlp, rows, width)]
    shapes.append((rows, width, config.vocab_size))
    product = jax.jit(jnp.matmul)

    def rate(m: int, k: int, n: int) -> float:
        keys = jax.random.split(
            jax.random.key(0)
        )  # not zeros or ones: a GPU multiplies them faster
        left, right = (
            jax.random.normal(key, shape, dtype)
            for key, shape in zip(keys, ((m, k), (k, n)), strict=True)
        )
        return 2e-9 * m * k * n / least_seconds(product, left, right)

    return max(rate(*shape) for shape in shapes)


def read_gigabytes() -> float:
    """Bytes that a sum over a large array reads a second, in 10⁹."""
    size = _READ_BYTES_ON_CPU if jax.default_backend() == "cpu" else _READ_BYTES
    x = jnp.ones((size // 2**22, 2**20), jnp.float32)
    return 1e-9 * size / least_seconds(jax.jit(jnp.sum), x)
