"""What every test runs under: CPU, checked shapes, no implicit broadcasting across ranks."""

import os
import signal
import typing
from pathlib import Path

from tests.simulated import FLAGS

# Before the first import of jax, which reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", FLAGS)

import hypothesis
import jax
import jaxtyping
import pytest
from beartype import beartype


def check_signature(function):
    """Beartype for functions, but for two kinds that it cannot or must not check.

    The constructors of dataclasses: `jax.tree.map` and `jax.vmap` rebuild pytrees with shapes or
    specs in place of arrays. Methods that return `Self`: beartype takes whole classes only there.
    """
    if function.__name__ == "__init__" or typing.Self in function.__annotations__.values():
        return function
    return beartype(function)


# A shell starts background processes, such as these tests, with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The packages whose functions take arrays. The check costs 20 microseconds per call, too much for
# the graders and the planner, which make millions of calls in the suite.
_CHECKED = ("algorithm", "evaluation", "models", "ops", "runs", "sampling", "types")
jaxtyping.install_import_hook(
    [f"asyppo_jax.{package}" for package in _CHECKED], f"{__name__}.check_signature"
)

jax.config.update("jax_numpy_rank_promotion", "raise")
# The suite is mostly compilation: a second run takes half the time. Set here and not in the
# environment, so that the programs that tests start and kill compile for themselves.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

# A machine that is shared is slow at times: no limits on time, and the same examples each run.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


@pytest.fixture
def one_sampler(monkeypatch):
    """A sampler on a CPU is one program to compile, not a smaller one too for each few that end."""
    monkeypatch.setattr("asyppo_jax.sampling.engine._MIN_SLOTS", 10**6)
