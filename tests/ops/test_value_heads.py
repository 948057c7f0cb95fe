"""Value heads: their range, their inverse, and the mean of a distribution over bins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops.value_heads import ValueHead

BOUNDED = (ValueHead("atan"), ValueHead("sigmoid"), ValueHead("atan", -1.0, 3.0))


def test_a_linear_head_is_the_output():
    outputs = jnp.array([-3.0, 0.0, 7.5])
    np.testing.assert_array_equal(ValueHead().value(outputs), outputs)


@pytest.mark.parametrize("head", BOUNDED, ids=str)
def test_a_bounded_head_is_monotonic_within_its_range_and_central_at_0(head):
    values = np.asarray(head.value(jnp.linspace(-40.0, 40.0, 200)))
    assert (np.diff(values) >= 0).all()
    assert values.min() >= head.low and values.max() <= head.high
    assert head.value(jnp.zeros(())) == pytest.approx((head.low + head.high) / 2)


def test_values_of_hand_computed_outputs():
    assert ValueHead("atan").value(jnp.array(1.0)) == pytest.approx(0.75)  # atan(1) = π/4
    assert ValueHead("sigmoid").value(jnp.log(jnp.array(3.0))) == pytest.approx(0.75)


@pytest.mark.parametrize("head", (ValueHead(), *BOUNDED), ids=str)
def test_inverse_undoes_value(head):
    for share in (0.05, 0.3, 0.9):
        value = jnp.asarray(head.low + share * (head.high - head.low))
        assert head.value(head.inverse(value)) == pytest.approx(float(value), abs=1e-5)


@pytest.mark.parametrize("head", BOUNDED, ids=str)
def test_the_inverse_of_an_end_is_finite_and_has_a_slope(head):
    for end in (head.low, head.high):
        start = head.inverse(jnp.asarray(end, jnp.float32))
        assert np.isfinite(start) and jax.grad(head.value)(start) > 0


def test_bins_give_the_mean_of_the_distribution():
    head = ValueHead("bins", 0.0, 1.0, bins=3)  # centers 0, ½, 1
    logits = jnp.log(jnp.array([[0.2, 0.2, 0.6], [1.0, 1e-9, 1e-9]]))
    np.testing.assert_allclose(head.value(logits), [0.7, 0.0], atol=1e-6)
    assert head.output_shape == (3,)
