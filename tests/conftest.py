"""What every test runs under: CPU, checked shapes, no implicit broadcasting across ranks."""

import os

# Before the first import of jax, which reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import jaxtyping
from beartype import beartype


def check_signature(function):
    """Beartype for functions; the constructors of dataclasses are left alone.

    `jax.tree.map` and `jax.vmap` rebuild pytrees with shapes, specs or None in place of arrays.
    """
    return function if function.__name__ == "__init__" else beartype(function)


jaxtyping.install_import_hook("asyppo_jax", f"{__name__}.check_signature")

jax.config.update("jax_numpy_rank_promotion", "raise")

# A machine that is shared is slow at times: no limits on time, and the same examples each run.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")
