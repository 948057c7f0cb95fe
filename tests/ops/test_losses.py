"""The clipped surrogate, the masked policy loss and the value loss, and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyppo_jax.ops import losses, masked

surrogate = functools.partial(losses.clipped_surrogate, clip_eps_low=0.2, clip_eps_high=0.28)
jitted_surrogate = jax.jit(surrogate)


def random_tokens(seed=0, shape=(3, 5)):
    rng = np.random.default_rng(seed)
    old, change, advantages = rng.standard_normal((3, *shape)).astype(np.float32)
    old = -np.abs(old)
    return jnp.asarray(old + 0.4 * change), jnp.asarray(old), jnp.asarray(advantages)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, 2.0),  # ratio 1: the advantage
        (1.5, 2.0, 2.56),  # min(3, 1.28 * 2): clipped
        (1.25, 2.0, 2.5),  # within the upper range, which is wider than the lower one
        (0.5, 2.0, 1.0),  # min(1, 0.8 * 2): a good token became less likely, not clipped
        (1.5, -2.0, -3.0),  # min(-3, -2.56): a bad token became more likely, not clipped
        (0.5, -2.0, -1.6),  # min(-1, 0.8 * -2): clipped
        (0.9, -2.0, -1.8),  # within the range
        (3.0, 0.0, 0.0),
    ],
)
def test_the_surrogate_of_hand_computed_examples(ratio, advantage, expected):
    old = jnp.array([-2.0])
    value, returned_ratio = surrogate(old + jnp.log(ratio), old, jnp.array([advantage]))
    assert value[0] == pytest.approx(expected, rel=1e-6)
    assert returned_ratio[0] == pytest.approx(ratio, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    log_ratio=st.floats(-3, 3, width=32),
    old=st.floats(-8, 0, width=32),
    advantage=st.floats(-5, 5, width=32),
)
def test_the_surrogate_equals_its_definition_and_never_exceeds_the_unclipped_one(
    log_ratio, old, advantage
):
    log_prob = jnp.array([old + log_ratio], jnp.float32)
    old_log_prob, advantages = jnp.array([old]), jnp.array([advantage])
    value, ratio = jitted_surrogate(log_prob, old_log_prob, advantages)
    exact_ratio = float(np.exp(np.float64(log_prob[0]) - np.float64(old)))
    expected = min(exact_ratio * advantage, min(max(exact_ratio, 0.8), 1.28) * advantage)
    assert value[0] == pytest.approx(expected, rel=3e-6, abs=1e-6)
    assert value[0] <= ratio[0] * advantage + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    log_ratio=st.floats(-3, 3, width=32),
    advantage=st.floats(-5, 5, width=32),
    bound=st.sampled_from([1.1, 2.0, 3.0]),
)
def test_the_dual_clip_bounds_only_the_surrogate_of_bad_tokens(log_ratio, advantage, bound):
    old, advantages = jnp.zeros(1), jnp.array([advantage])
    value, _ = surrogate(jnp.array([log_ratio]), old, advantages, dual_clip=bound)
    ratio = float(np.exp(np.float64(log_ratio)))
    expected = min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
    if advantage < 0:
        expected = max(expected, bound * advantage)
    assert value[0] == pytest.approx(expected, rel=3e-6, abs=1e-6)


def test_the_dual_clip_stops_the_gradient_of_bad_tokens_above_it():
    ratio = jnp.array([4.0, 2.0, 4.0, 0.5])
    advantages = jnp.array([-2.0, -2.0, 2.0, -2.0])

    def total(log_probs, **options):
        return jnp.sum(surrogate(log_probs, jnp.zeros(4), advantages, **options)[0])

    gradient = jax.grad(total)(jnp.log(ratio), dual_clip=3.0)
    np.testing.assert_allclose(gradient, [0.0, -4.0, 0.0, 0.0], rtol=1e-6)
    without = jax.grad(total)(jnp.log(ratio))
    np.testing.assert_allclose(without, [-8.0, -4.0, 0.0, 0.0], rtol=1e-6)


def test_the_gradient_is_zero_for_clipped_tokens_and_else_ratio_times_advantage():
    ratio = jnp.array([1.5, 0.5, 1.5, 0.5, 1.1])
    advantages = jnp.array([2.0, -2.0, -2.0, 2.0, 3.0])
    clipped = np.array([True, True, False, False, False])
    old = jnp.full((5,), -1.0)
    gradient = jax.grad(lambda lp: jnp.sum(surrogate(lp, old, advantages)[0]))(old + jnp.log(ratio))
    np.testing.assert_allclose(gradient, np.where(clipped, 0, ratio * advantages), rtol=1e-6)


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    _, old, advantages = random_tokens()
    gradient = jax.grad(lambda lp: jnp.sum(surrogate(lp, old, advantages)[0]))(old)
    np.testing.assert_allclose(gradient, advantages, rtol=1e-6)


def test_each_mask_affects_only_its_own_term():
    # surrogate 1, 2, 3, 4 and entropy 10, 20, 30, 40 with a coefficient of 0.5:
    # nothing dropped -(1 + 5); surrogate dropped -(0 + 10); entropy dropped -(3 + 0); both 0
    loss = losses.asyppo_loss(
        jnp.array([1.0, 2.0, 3.0, 4.0]),
        jnp.array([10.0, 20.0, 30.0, 40.0]),
        jnp.array([True, False, True, False]),
        jnp.array([True, True, False, False]),
        entropy_coef=0.5,
    )
    np.testing.assert_array_equal(loss, [-6.0, -10.0, -3.0, 0.0])


def test_without_dropped_tokens_the_loss_is_ppos_with_an_entropy_bonus():
    log_probs, old, advantages = random_tokens()
    entropy = -log_probs
    all_tokens = jnp.ones(old.shape, bool)
    value, ratio = surrogate(log_probs, old, advantages)
    loss = losses.asyppo_loss(value, entropy, all_tokens, all_tokens, entropy_coef=0.01)
    ppo = jnp.minimum(ratio * advantages, jnp.clip(ratio, 0.8, 1.28) * advantages)
    np.testing.assert_allclose(loss, -ppo - 0.01 * entropy, rtol=1e-6, atol=1e-7)


def test_a_dropped_token_still_counts_in_the_length_of_its_completion():
    # A completion of four real tokens and one padding token; the surrogate of two is dropped.
    # The formula's 1/|o| is 1/4 and stands outside the mask: -(1 + 3) / 4, not -(1 + 3) / 2.
    completion_mask = jnp.array([[True, True, True, True, False]])
    advantage_mask = jnp.array([[True, False, True, False, False]])
    loss = losses.asyppo_loss(
        jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0]]),
        jnp.zeros((1, 5)),
        advantage_mask,
        completion_mask,
        entropy_coef=0.0,
    )
    total, num_sequences = masked.sequence_mean_sum(loss, completion_mask)
    assert total / num_sequences == -1.0


def test_dropped_tokens_get_no_gradient_from_the_masked_term():
    advantage_mask = jnp.array([True, False, True, False])
    entropy_mask = jnp.array([True, True, False, False])

    def total(value, entropy):
        return jnp.sum(
            losses.asyppo_loss(value, entropy, advantage_mask, entropy_mask, entropy_coef=0.5)
        )

    grad_surrogate, grad_entropy = jax.grad(total, argnums=(0, 1))(jnp.ones(4), jnp.ones(4))
    np.testing.assert_array_equal(grad_surrogate, [-1.0, 0.0, -1.0, 0.0])
    np.testing.assert_array_equal(grad_entropy, [-0.5, -0.5, 0.0, 0.0])


def test_dropped_nan_and_inf_do_not_reach_the_loss():
    mask = jnp.array([True, False])
    loss = losses.asyppo_loss(
        jnp.array([1.0, jnp.nan]), jnp.array([2.0, jnp.inf]), mask, mask, entropy_coef=0.5
    )
    np.testing.assert_array_equal(loss, [-2.0, 0.0])


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_estimates_of_the_kl_equal_their_formulas(estimator):
    log_probs, reference, _ = random_tokens()
    d = np.asarray(log_probs, np.float64) - np.asarray(reference, np.float64)
    formulas = {"k1": d, "k2": d**2 / 2, "k3": np.exp(-d) - 1 + d}
    result = losses.kl_penalty(log_probs, reference, estimator)
    np.testing.assert_allclose(result, formulas[estimator], rtol=1e-5, atol=1e-7)


def test_a_tiny_kl_by_k3_keeps_its_digits():
    d = jnp.array([1e-4, -1e-4, 1e-3])  # in float32, exp(-d) - 1 + d has no digit of 5e-9
    result = jax.jit(losses.kl_penalty)(d, jnp.zeros(3))
    np.testing.assert_allclose(result, [5e-9, 5e-9, 5e-7], rtol=5e-3)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_expected_gradient_of_each_estimate_is_that_of_another_kl(estimator):
    """Exact over six tokens: 0 for k1, KL(policy || reference) for k2, the reverse for k3."""
    logits, other = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    reference = jax.nn.log_softmax(other)

    def expected_estimate(logits):
        log_p = jax.nn.log_softmax(logits)
        sampled = jax.lax.stop_gradient(jnp.exp(log_p))  # how often each token is drawn
        return jnp.sum(sampled * losses.kl_penalty(log_p, reference, estimator))

    def kl(logits):
        log_p = jax.nn.log_softmax(logits)
        forward = jnp.sum(jnp.exp(log_p) * (log_p - reference))
        reverse = jnp.sum(jnp.exp(reference) * (reference - log_p))
        return {"k1": 0.0 * forward, "k2": forward, "k3": reverse}[estimator]

    gradient, expected = jax.grad(expected_estimate)(logits), jax.grad(kl)(logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    if estimator != "k2":  # k1 and k3 are unbiased
        log_p = jax.nn.log_softmax(logits)
        value = jnp.sum(jnp.exp(log_p) * (log_p - reference))
        np.testing.assert_allclose(expected_estimate(logits), value, rtol=1e-5)


def test_the_kl_has_no_gradient_to_the_reference():
    log_probs, reference, _ = random_tokens()
    gradient = jax.grad(lambda r: jnp.sum(losses.kl_penalty(log_probs, r)))(reference)
    np.testing.assert_array_equal(gradient, 0.0)


def test_the_squared_error_has_no_factor_half_and_no_gradient_to_the_returns():
    # (3 - 1)^2 = 4; the gradient to the value is 2 * (3 - 1), to the return 0.
    values, returns = jnp.array([3.0, -1.0]), jnp.array([1.0, 0.5])
    np.testing.assert_array_equal(losses.squared_error(values, returns), [4.0, 2.25])

    def total(v, r):
        return jnp.sum(losses.squared_error(v, r))

    grad_values, grad_returns = jax.grad(total, argnums=(0, 1))(values, returns)
    np.testing.assert_array_equal(grad_values, [4.0, -3.0])
    np.testing.assert_array_equal(grad_returns, 0.0)


def test_the_losses_of_a_token_depend_only_on_that_token():
    log_probs, old, advantages = (x[0] for x in random_tokens())
    all_tokens = jnp.ones(old.shape, bool)

    def loss(lp):
        value, _ = surrogate(lp, old, advantages)
        return losses.asyppo_loss(value, -lp, all_tokens, all_tokens, entropy_coef=0.1)

    for jacobian in (jax.jacobian(loss)(log_probs), jax.jacobian(losses.squared_error)(old, old)):
        np.testing.assert_array_equal(jacobian, jnp.diag(jnp.diag(jacobian)))


def test_compiled_and_batched_variants_agree(assert_variants_agree):
    log_probs, old, advantages = random_tokens()
    assert_variants_agree(surrogate, log_probs, old, advantages)
    assert_variants_agree(losses.squared_error, log_probs, advantages)
    assert_variants_agree(losses.kl_penalty, log_probs, old)
    loss = functools.partial(losses.asyppo_loss, entropy_coef=0.1)
    assert_variants_agree(loss, advantages, -old, advantages > 0, old < -0.5)
