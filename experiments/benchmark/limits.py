"""Measured limits of this machine: matrix products of the model's shapes, and memory reads."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from asyppo_jax.models.config import ModelConfig

_READ_BYTES, _READ_BYTES_ON_CPU = 4 * 2**30, 512 * 2**20  # larger than any cache
_CALLS, _CALLS_ON_CPU = 20, 1  # calls per timing, so that the launch overhead does not count
_REPEATS = 5


class DataSheet(NamedTuple):
    """Peak rates of a GPU according to its manufacturer."""

    gflops: float  # dense products in bfloat16, 10⁹ FLOP/s
    gigabytes: float  # memory bandwidth, 10⁹ bytes/s


# NVIDIA's data sheets of the SXM versions, by JAX's name of the device.
DATA_SHEETS = {
    "NVIDIA H100 80GB HBM3": DataSheet(989_400, 3_350),
    "NVIDIA H200": DataSheet(989_400, 4_800),
}


def least_seconds(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    """The least time per call, after a first call that compiles.

    On an accelerator many calls are timed together.
    """
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
    """The best rate, in 10⁹ FLOP/s, of a product of `rows` tokens with a matrix of the model.

    The products of the MLP, of the head and of a weight gradient are measured. The result is what
    the library reaches on these shapes, not the number of a data sheet.
    """
    width, mlp = config.embed_dim, config.mlp_dim
    shapes = [(rows, width, mlp), (rows, mlp, width), (mlp, rows, width)]
    shapes.append((rows, width, config.vocab_size))
    product = jax.jit(jnp.matmul)

    def rate(m: int, k: int, n: int) -> float:
        # Random numbers, because a GPU multiplies zeros or ones faster.
        keys = jax.random.split(jax.random.key(0))
        left, right = (
            jax.random.normal(key, shape, dtype)
            for key, shape in zip(keys, ((m, k), (k, n)), strict=True)
        )
        return 2e-9 * m * k * n / least_seconds(product, left, right)

    return max(rate(*shape) for shape in shapes)


def read_gigabytes() -> float:
    """Memory read bandwidth in 10⁹ bytes/s, measured by a sum over a large array."""
    size = _READ_BYTES_ON_CPU if jax.default_backend() == "cpu" else _READ_BYTES
    x = jnp.ones((size // 2**22, 2**20), jnp.float32)
    return 1e-9 * size / least_seconds(jax.jit(jnp.sum), x)
