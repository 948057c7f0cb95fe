"""Fixtures for the tests of the pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def assert_variants_agree():
    """A check that jit, and vmap under jit, give the same results as plain calls per example."""

    def check(function, *batches, rtol=1e-6, atol=1e-6):
        size = len(batches[0])
        assert size > 1, "the check needs several examples: with one, vmap could mix them up unseen"
        examples = [tuple(batch[i] for batch in batches) for i in range(size)]
        eager = _stack([function(*example) for example in examples])
        jitted = jax.jit(function)
        variants = {
            "jit": _stack([jitted(*example) for example in examples]),
            "vmap": jax.jit(jax.vmap(function))(*batches),
        }
        for name, results in variants.items():
            for expected_leaf, leaf in zip(
                jax.tree.leaves(eager), jax.tree.leaves(results), strict=True
            ):
                np.testing.assert_allclose(leaf, expected_leaf, rtol=rtol, atol=atol, err_msg=name)

    return check


def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
