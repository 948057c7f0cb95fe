"""The three ways from per-token losses to one number, against the formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops.aggregation import length_normalizer, loss_denominator

LENGTHS = np.array([4, 1, 0, 2])
MASK = np.arange(5)[None] < LENGTHS[:, None]
LOSSES = np.random.default_rng(0).normal(size=MASK.shape).astype(np.float32)


def _loss(aggregation):
    mask = jnp.asarray(MASK)
    normalizer = length_normalizer(mask, aggregation)
    return np.sum(normalizer * LOSSES) / loss_denominator(mask, aggregation)


def _per_sequence(divisor):
    sums = [LOSSES[i, :n].sum() / (divisor or n) for i, n in enumerate(LENGTHS) if n]
    return np.mean(sums)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sequence", _per_sequence(None)),
        ("token", LOSSES[MASK].mean()),
        ("constant", _per_sequence(5)),
    ],
)
def test_the_loss_is_that_of_the_formula(aggregation, expected):
    np.testing.assert_allclose(_loss(aggregation), expected, rtol=1e-6)


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
def test_without_a_real_token_the_loss_is_zero(aggregation):
    nothing = jnp.zeros(MASK.shape, bool)
    assert not np.asarray(length_normalizer(nothing, aggregation)).any()
    assert loss_denominator(nothing, aggregation) == 1
