"""Token rewards, advantages and returns: hand-computed examples, slow loops and identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyppo_jax.ops import returns

C = 8
FLOATS = st.floats(-10, 10, width=32)
# Three real tokens, then padding with a value that no real token has.
MASK = jnp.array([True, True, True, False, False])
VALUES = jnp.array([0.5, 0.25, 0.75, 9.0, 9.0])
TOKEN_REWARDS = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])


def prefix_mask(length, size=C):
    return jnp.arange(size) < length


def slow_gae(token_rewards, values, length, gamma, gae_lambda):
    """A_t = Σ_l (γλ)^l δ_{t+l} as a double sum in float64, directly from the definition."""
    token_rewards, values = np.asarray(token_rewards, np.float64), np.asarray(values, np.float64)
    advantages = np.zeros(len(values))
    for t in range(length):
        for s in range(t, length):
            next_value = values[s + 1] if s + 1 < length else 0.0
            delta = token_rewards[s] + gamma * next_value - values[s]
            advantages[t] += (gamma * gae_lambda) ** (s - t) * delta
    return advantages


def naive_gae(token_rewards, values, mask, gamma, gae_lambda):
    """A common mistake: the values of padding are used, and only the result is masked."""
    advantages, advantage = np.zeros(len(values)), 0.0
    for t in reversed(range(len(values))):
        next_value = values[t + 1] if t + 1 < len(values) else 0.0
        advantage = (
            token_rewards[t] + gamma * next_value - values[t] + gamma * gae_lambda * advantage
        )
        advantages[t] = advantage
    return np.where(mask, advantages, 0.0)


@functools.cache
def jitted_gae(gamma, gae_lambda):
    return jax.jit(functools.partial(returns.gae, gamma=gamma, gae_lambda=gae_lambda))


def random_sequences(seed=0, batch=4):
    rng = np.random.default_rng(seed)
    token_rewards = jnp.asarray(rng.standard_normal((batch, C)), jnp.float32)
    values = jnp.asarray(rng.standard_normal((batch, C)), jnp.float32)
    mask = jnp.stack([prefix_mask(n) for n in (C, 1, 5, 3)[:batch]])
    return token_rewards, values, mask


def test_gae_of_a_hand_computed_example():
    # gamma = lambda = 1/2, so gamma * lambda = 1/4, and every number below is exact in binary.
    # delta_2 = 1 + 0.5 * 0    - 0.75 =  0.25     A_2 =  0.25
    # delta_1 = 0 + 0.5 * 0.75 - 0.25 =  0.125    A_1 =  0.125 + 0.25 * 0.25   =  0.1875
    # delta_0 = 0 + 0.5 * 0.25 - 0.5  = -0.375    A_0 = -0.375 + 0.25 * 0.1875 = -0.328125
    advantages = returns.gae(TOKEN_REWARDS, VALUES, MASK, gamma=0.5, gae_lambda=0.5)
    np.testing.assert_array_equal(advantages, [-0.328125, 0.1875, 0.25, 0.0, 0.0])


def test_lambda_returns_of_a_hand_computed_example():
    # A + V of the case above: -0.328125 + 0.5, 0.1875 + 0.25, 0.25 + 0.75; the 9 is unused
    advantages = jnp.array([-0.328125, 0.1875, 0.25, 0.0, 0.0])
    result = returns.lambda_returns(advantages, VALUES, MASK)
    np.testing.assert_array_equal(result, [0.171875, 0.4375, 1.0, 0.0, 0.0])


def test_monte_carlo_returns_of_a_hand_computed_example():
    # R_2 = 4;  R_1 = 2 + 0.5 * 4 = 4;  R_0 = 1 + 0.5 * 4 = 3; the padding's reward 8 is unused
    token_rewards = jnp.array([1.0, 2.0, 4.0, 8.0, 8.0])
    result = returns.monte_carlo_returns(token_rewards, MASK, gamma=0.5)
    np.testing.assert_array_equal(result, [3.0, 4.0, 4.0, 0.0, 0.0])


@settings(max_examples=60, deadline=None)
@given(
    token_rewards=st.lists(FLOATS, min_size=C, max_size=C),
    values=st.lists(FLOATS, min_size=C, max_size=C),
    length=st.integers(0, C),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    gae_lambda=st.sampled_from([0.0, 0.95, 1.0]),
)
def test_gae_equals_the_double_sum_of_its_definition(
    token_rewards, values, length, gamma, gae_lambda
):
    result = jitted_gae(gamma, gae_lambda)(
        jnp.array(token_rewards), jnp.array(values), prefix_mask(length)
    )
    expected = slow_gae(token_rewards, values, length, gamma, gae_lambda)
    # Terms of size 10 cancel, so the tolerance is a few float32 rounding errors at 100.
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=3e-5)


@pytest.mark.parametrize("padding", [0.0, 9.0, -1e6, np.inf, np.nan])
def test_values_and_rewards_of_padding_are_ignored(padding):
    values = jnp.where(MASK, VALUES, padding)
    rewards = jnp.where(MASK, TOKEN_REWARDS, padding)
    advantages = returns.gae(rewards, values, MASK, gamma=1.0, gae_lambda=0.95)
    expected = slow_gae(TOKEN_REWARDS, VALUES, 3, 1.0, 0.95)
    np.testing.assert_allclose(advantages, expected, rtol=1e-6)
    lambda_returns = returns.lambda_returns(advantages, values, MASK)
    np.testing.assert_allclose(lambda_returns[:3], expected[:3] + VALUES[:3], rtol=1e-6)
    np.testing.assert_array_equal(lambda_returns[3:], 0.0)
    monte_carlo = returns.monte_carlo_returns(rewards, MASK, gamma=1.0)
    np.testing.assert_array_equal(monte_carlo, [1.0, 1.0, 1.0, 0.0, 0.0])


def test_gae_on_unmasked_values_leaks_padding_and_ours_does_not():
    def last_real_advantage(function, padding):
        values = jnp.where(MASK, VALUES, padding)
        return float(function(TOKEN_REWARDS, values, MASK)[2])

    naive = functools.partial(naive_gae, gamma=1.0, gae_lambda=0.95)
    ours = functools.partial(returns.gae, gamma=1.0, gae_lambda=0.95)
    # The last real token's advantage is reward - value = 0.25. The naive code adds the padding's
    # value, 9, and 0.95 times the padding's "advantages", 0 at t = 3 and -9 at t = 4:
    # 0.25 + 9 + 0.95 * (0 + 0.95 * -9) = 1.1275.
    assert last_real_advantage(naive, 9.0) == pytest.approx(1.1275)
    assert last_real_advantage(naive, 0.0) == pytest.approx(0.25)
    assert last_real_advantage(ours, 9.0) == last_real_advantage(ours, 0.0) == 0.25


def test_the_value_after_a_truncated_completion_is_zero_too():
    # Without any padding: A_1 = r - V = 1 - 0.5, no bootstrap value after the end of the array.
    advantages = returns.gae(
        jnp.array([0.0, 1.0]), jnp.array([0.25, 0.5]), jnp.ones(2, bool), gamma=1.0, gae_lambda=1.0
    )
    np.testing.assert_array_equal(advantages, [0.75, 0.5])


def test_an_empty_sequence_has_zero_advantages_and_returns():
    empty_mask = jnp.zeros(5, bool)
    advantages = returns.gae(TOKEN_REWARDS, VALUES, empty_mask, gamma=1.0, gae_lambda=1.0)
    np.testing.assert_array_equal(advantages, 0.0)
    np.testing.assert_array_equal(returns.lambda_returns(VALUES, VALUES, empty_mask), 0.0)
    np.testing.assert_array_equal(
        returns.monte_carlo_returns(TOKEN_REWARDS, empty_mask, gamma=1.0), 0.0
    )


def test_at_gamma_and_lambda_one_every_return_is_the_final_reward():
    _, values, mask = random_sequences()
    rewards = jnp.array([1.0, 0.0, 0.5, 1.0])
    for reward, row_values, row_mask in zip(rewards, values, mask, strict=True):
        token_rewards = returns.place_reward(reward, row_mask)
        advantages = returns.gae(token_rewards, row_values, row_mask, gamma=1.0, gae_lambda=1.0)
        result = returns.lambda_returns(advantages, row_values, row_mask)
        np.testing.assert_allclose(result, jnp.where(row_mask, reward, 0.0), atol=1e-6)
        monte_carlo = returns.monte_carlo_returns(token_rewards, row_mask, gamma=1.0)
        np.testing.assert_array_equal(monte_carlo, jnp.where(row_mask, reward, 0.0))


def test_at_lambda_one_the_lambda_return_is_the_monte_carlo_return():
    for token_rewards, values, mask in zip(*random_sequences(), strict=True):
        advantages = returns.gae(token_rewards, values, mask, gamma=0.9, gae_lambda=1.0)
        np.testing.assert_allclose(
            returns.lambda_returns(advantages, values, mask),
            returns.monte_carlo_returns(token_rewards, mask, gamma=0.9),
            atol=2e-6,
        )


def test_at_lambda_zero_the_advantage_is_the_one_step_td_error():
    token_rewards, values, mask = (x[2] for x in random_sequences())  # five real tokens
    advantages = returns.gae(token_rewards, values, mask, gamma=0.9, gae_lambda=0.0)
    next_values = np.append(values[1:5], 0.0)
    expected = token_rewards[:5] + 0.9 * next_values - values[:5]
    np.testing.assert_allclose(advantages[:5], expected, atol=1e-6)


def test_an_advantage_does_not_depend_on_earlier_tokens_or_padding():
    token_rewards, values, mask = (x[2] for x in random_sequences())  # five real tokens
    function = functools.partial(returns.gae, gamma=0.9, gae_lambda=0.5)
    reward_jacobian, value_jacobian = jax.jacobian(function, argnums=(0, 1))(
        token_rewards, values, mask
    )
    for t in range(C):
        for s in range(C):
            # dA_t / dr_s = (gamma * lambda)^(s - t) for real tokens s >= t; else 0
            depends = t <= s < 5
            assert reward_jacobian[t, s] == pytest.approx(
                0.45 ** (s - t) if depends else 0.0, abs=1e-7
            )
            assert depends or value_jacobian[t, s] == 0
    np.testing.assert_allclose(np.diag(value_jacobian)[:5], -1.0, rtol=1e-6)


def test_the_gradient_stays_finite_with_nan_in_the_padding():
    values = jnp.where(MASK, VALUES, jnp.nan)

    def total(v):
        return jnp.sum(returns.gae(TOKEN_REWARDS, v, MASK, gamma=1.0, gae_lambda=0.9))

    gradient = jax.grad(total)(values)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[3:], 0.0)


def test_compiled_and_batched_variants_agree(assert_variants_agree):
    token_rewards, values, mask = random_sequences()
    gae = functools.partial(returns.gae, gamma=0.9, gae_lambda=0.8)
    assert_variants_agree(gae, token_rewards, values, mask)
    assert_variants_agree(returns.lambda_returns, token_rewards, values, mask)
    monte_carlo = functools.partial(returns.monte_carlo_returns, gamma=0.9)
    assert_variants_agree(monte_carlo, token_rewards, mask)
    assert_variants_agree(returns.place_reward, token_rewards[:, 0], mask)
    assert_variants_agree(returns.whiten, *(jnp.stack([x, x[::-1]]) for x in (values, mask)))
    assert_variants_agree(returns.group_advantages, token_rewards, mask)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_reward_is_on_the_last_real_token_in_float32(dtype):
    # With a bool or integer dtype the reward 0.5 would become 0.
    for length in range(1, 6):
        placed = returns.place_reward(jnp.array(0.5, dtype), prefix_mask(length, 5))
        assert placed.dtype == jnp.float32
        np.testing.assert_array_equal(placed, 0.5 * (np.arange(5) == length - 1))
    np.testing.assert_array_equal(
        returns.place_reward(jnp.array(0.5, dtype), jnp.zeros(5, bool)), 0.0
    )


def test_whitening_uses_real_tokens_only():
    # Real: 1, 3, 5, 3 -> mean 3, population variance (4 + 0 + 4 + 0) / 4 = 2.
    x = jnp.array([[1.0, 3.0, 1e6], [5.0, 3.0, jnp.nan]])
    mask = jnp.array([[True, True, False], [True, True, False]])
    root = 1 / np.sqrt(2)
    expected = [[-2 * root, 0.0, 0.0], [2 * root, 0.0, 0.0]]
    np.testing.assert_allclose(returns.whiten(x, mask), expected, rtol=1e-6)


def test_whitening_is_accurate_far_from_zero():
    # E[x^2] - E[x]^2 loses all digits in float32 here: 1e6 against a variance of 1e-2.
    rng = np.random.default_rng(1)
    x = jnp.asarray(1000 + 0.1 * rng.standard_normal((6, 9)), jnp.float32)
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean()) / exact.std()
    one_pass = np.mean(np.square(x)) - np.square(np.mean(x))
    assert abs(one_pass / exact.var() - 1) > 0.1
    np.testing.assert_allclose(returns.whiten(x, jnp.ones(x.shape, bool)), expected, atol=2e-3)


def test_whitening_equal_advantages_gives_zero_and_not_nan():
    np.testing.assert_array_equal(
        returns.whiten(jnp.full((2, 3), 2.0), jnp.ones((2, 3), bool)), 0.0
    )


def test_group_advantages_of_a_hand_computed_example():
    # mean 1/4; sample variance (9/16 + 3 * 1/16) / 3 = 1/4, so the standard deviation is 1/2
    advantages = returns.group_advantages(jnp.array([0.0, 1.0, 0.0, 0.0]), jnp.ones(4, bool))
    np.testing.assert_allclose(advantages, np.array([-0.25, 0.75, -0.25, -0.25]) / 0.500001)


def test_unscaled_group_advantages_are_rewards_less_their_mean():
    rewards, valid = jnp.array([0.0, 1.0, jnp.nan, 0.5]), jnp.array([True, True, False, True])
    advantages = returns.group_advantages(rewards, valid, scale="none")
    np.testing.assert_allclose(advantages, [-0.5, 0.5, 0.0, 0.0], atol=1e-7)


def test_an_invalid_reward_does_not_affect_its_group():
    rewards = jnp.array([0.0, jnp.nan, 1.0, 1.0])
    valid = jnp.array([True, False, True, True])
    expected = returns.group_advantages(rewards[valid], jnp.ones(3, bool))
    advantages = returns.group_advantages(rewards, valid)
    np.testing.assert_allclose(advantages[valid], expected, rtol=1e-6)
    assert advantages[1] == 0


@pytest.mark.parametrize("num_valid", [0, 1])
def test_a_group_with_fewer_than_two_valid_rewards_has_zero_advantages(num_valid):
    advantages = returns.group_advantages(jnp.array([0.7, 0.2, 0.9]), prefix_mask(num_valid, 3))
    np.testing.assert_array_equal(advantages, 0.0)


@pytest.mark.parametrize("group_size", [3, 8, 16])
@pytest.mark.parametrize("reward", [0.01, 0.7, 1.0])
def test_a_group_of_equal_rewards_has_zero_advantages(group_size, reward):
    # A rounding error of 6e-8 in the mean would not be small compared to epsilon = 1e-6.
    rewards = jnp.full((group_size,), reward)
    advantages = returns.group_advantages(rewards, jnp.ones(group_size, bool))
    np.testing.assert_array_equal(advantages, 0.0)


def test_leave_one_out_advantages_are_rewards_less_the_mean_of_the_others():
    rewards = np.array([0.0, 1.0, np.nan, 0.25, 0.5], np.float32)
    valid = np.array([True, True, False, True, True])
    advantages = returns.leave_one_out_advantages(jnp.asarray(rewards), jnp.asarray(valid))
    for i in np.flatnonzero(valid):
        others = [rewards[j] for j in np.flatnonzero(valid) if j != i]
        assert advantages[i] == pytest.approx(rewards[i] - np.mean(others), rel=1e-6, abs=1e-7)
    assert advantages[2] == 0


@pytest.mark.parametrize("num_valid", [0, 1])
def test_without_other_rewards_leave_one_out_advantages_are_zero(num_valid):
    rewards = jnp.array([0.7, 0.2, 0.9])
    advantages = returns.leave_one_out_advantages(rewards, prefix_mask(num_valid, 3))
    np.testing.assert_array_equal(advantages, 0.0)


def test_leave_one_out_advantages_of_equal_rewards_are_zero():
    advantages = returns.leave_one_out_advantages(jnp.full((7,), 0.7), jnp.ones(7, bool))
    np.testing.assert_array_equal(advantages, 0.0)


def test_the_penalty_for_long_answers_is_that_of_the_formula():
    # DAPO's sizes divided by 1024: 20 positions, of which the last 4 are the buffer.
    lengths = np.arange(0, 23)
    penalty = returns.overlong_penalty(jnp.asarray(lengths), max_length=20, buffer=4)
    for length, value in zip(lengths, penalty, strict=True):
        middle = ((20 - 4) - length) / 4
        assert value == (0 if length <= 16 else middle if length <= 20 else -1)
    assert penalty[20] == -1
