"""What this machine can do, measured: matrix products of the model's own shapes, and reads."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from asyppo_jax.models.config import ModelConfig

_READ_BYTES = 512 * 2**20  # beyond any cache
_REPEATS = 5


def least_seconds(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    """The least time of a few calls, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def gemm_gflops(config: ModelConfig, rows: int) -> float:
    """The best rate, in 10⁹ FLOP/s, of `rows` tokens through one matrix of the model, float32.

    Tried are the MLP's and the head's matrices and the product of their weight gradient: the limit
    is what the library can do on these shapes, not what a data sheet says.
    """
    width, mlp = config.embed_dim, config.mlp_dim
    shapes = [(rows, width, mlp), (rows, mlp, width), (mlp, rows, width)]
    shapes.append((rows, width, config.vocab_size))
    product = jax.jit(jnp.matmul)

    def rate(m: int, k: int, n: int) -> float:
        left, right = jnp.ones((m, k), jnp.float32), jnp.ones((k, n), jnp.float32)
        return 2e-9 * m * k * n / least_seconds(product, left, right)

    return max(rate(*shape) for shape in shapes)


def read_gigabytes() -> float:
    """Bytes that a sum over a large array reads a second, in 10⁹."""
    x = jnp.ones(_READ_BYTES // 4, jnp.float32)
    return 1e-9 * _READ_BYTES / least_seconds(jax.jit(jnp.sum), x)
