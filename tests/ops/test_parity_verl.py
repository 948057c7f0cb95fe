"""Equality with verl's functions on inputs and outputs from `fixtures/verl_core_algos.json`.

`fixtures/make_verl_core_algos.py` made the file, which names verl's commit. Where verl's definition
differs from ours, the test explains the difference and corrects for it.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.ops import logits, losses, masked, returns

FIXTURE = Path(__file__).parents[1] / "fixtures" / "verl_core_algos.json"
RECORDED = json.loads(FIXTURE.read_text())
REDUCERS = {"seq-mean-token-mean": masked.sequence_mean_sum, "token-mean": masked.token_sum}


def cases(name):
    """One recorded case per test, its lists as arrays and its mask as bool."""
    return pytest.mark.parametrize("case", [as_arrays(case) for case in RECORDED[name]])


def as_arrays(case):
    arrays = {k: jnp.array(v) if isinstance(v, list) else v for k, v in case.items()}
    if "mask" in arrays:
        arrays["mask"] = arrays["mask"].astype(bool)
    return arrays


def our_gae(case):
    gae = functools.partial(returns.gae, gamma=case["gamma"], gae_lambda=case["gae_lambda"])
    return jax.vmap(gae)(case["token_rewards"], case["values"], case["mask"])


def bessel(mask):
    """The ratio of standard deviations: verl whitens with n - 1 in the variance, we with n."""
    count = int(mask.sum())
    return np.sqrt((count - 1) / count)


def reduced(per_token, case):
    total, count = REDUCERS[case["loss_agg_mode"]](per_token, case["mask"])
    return total / count


@cases("gae")
def test_returns_equal_verls(case):
    # verl's function returns only whitened advantages, so GAE is compared by its returns. The
    # values at padding are around 100 here, and neither implementation uses them. On padding
    # itself verl's return is the padding's value; ours is 0.
    result = jax.vmap(returns.lambda_returns)(our_gae(case), case["values"], case["mask"])
    expected = np.where(case["mask"], case["returns"], 0.0)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@cases("gae")
def test_whitened_advantages_equal_verls_up_to_the_sample_variance(case):
    # On padding verl leaves (0 - mean) / std; ours is 0.
    result = bessel(case["mask"]) * returns.whiten(our_gae(case), case["mask"])
    expected = np.where(case["mask"], case["whitened_advantages"], 0.0)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@cases("whiten")
def test_whitening_equals_verls_up_to_the_sample_variance(case):
    result = bessel(case["mask"]) * returns.whiten(case["x"], case["mask"])
    expected = np.where(case["mask"], case["whitened"], 0.0)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)


@cases("group")
def test_group_advantages_equal_verls(case):
    # verl repeats the advantage for each token of the completion; ours is one number per
    # completion. Groups of one differ too, and are not recorded: verl uses the raw reward, our
    # advantage is 0.
    index = np.asarray(case["index"])
    for group in np.unique(index):
        rewards = case["rewards"][index == group]
        result = returns.group_advantages(rewards, jnp.ones(rewards.shape, bool))
        per_token = np.where(case["mask"][index == group], np.asarray(result)[:, None], 0.0)
        expected = case["token_advantages"][index == group]
        np.testing.assert_allclose(per_token, expected, rtol=1e-6, atol=1e-6)


@cases("policy_loss")
def test_policy_loss_and_gradient_equal_verls(case):
    # Recorded with verl's dual clip disabled by a large bound (by default it bounds the loss of a
    # bad token at ratio 3, unlike the paper's objective), and with log-ratios below its clamp, 20.
    def loss(log_probs):
        surrogate, _ = losses.clipped_surrogate(
            log_probs,
            case["old_log_probs"],
            case["advantages"],
            clip_eps_low=case["clip_eps_low"],
            clip_eps_high=case["clip_eps_high"],
        )
        all_tokens = jnp.ones(surrogate.shape, bool)
        per_token = losses.asyppo_loss(
            surrogate, jnp.zeros_like(surrogate), all_tokens, all_tokens, entropy_coef=0.0
        )
        return reduced(per_token, case)

    value, gradient = jax.value_and_grad(loss)(case["log_probs"])
    assert float(value) == pytest.approx(case["loss"], rel=1e-6)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-6, atol=1e-7)


@cases("kl_penalty")
def test_each_estimate_of_the_kl_and_its_gradient_equal_verls(case):
    # verl clamps d to ±20 and k3 to 10, where its gradient becomes 0; ours has no clamp. The
    # recorded numbers are within the clamps.
    def total(log_probs):
        kl = losses.kl_penalty(log_probs, case["reference_log_probs"], case["estimator"])
        return jnp.sum(kl), kl

    gradient, kl = jax.grad(total, has_aux=True)(case["log_probs"])
    np.testing.assert_allclose(kl, case["kl"], rtol=1e-6, atol=2e-7)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-6, atol=2e-7)


@cases("value_loss")
def test_value_loss_and_gradient_equal_twice_verls(case):
    # verl has a factor of 1/2, the paper's MSE has none. verl's clip range is too wide to matter.
    def loss(values):
        return reduced(losses.squared_error(values, case["returns"]), case)

    value, gradient = jax.value_and_grad(loss)(case["values"])
    assert float(value) == pytest.approx(2 * case["loss"], rel=1e-6)
    np.testing.assert_allclose(gradient, 2 * case["gradient"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("chunk", [2, 5])
@cases("logits")
def test_log_probs_entropy_and_gradients_equal_verls(case, chunk):
    def total(hidden, head):
        log_probs, entropy = logits.log_probs_and_entropy(
            hidden, head, case["targets"], chunk=chunk
        )
        weighted = case["log_prob_weight"] * log_probs + case["entropy_weight"] * entropy
        return jnp.sum(weighted), (log_probs, entropy)

    function = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (_, (log_probs, entropy)), gradients = function(case["hidden"], case["head"])
    np.testing.assert_allclose(log_probs, case["log_probs"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(entropy, case["entropy"], rtol=1e-6, atol=1e-6)
    # In the entropy's gradient p * log p and p * H nearly cancel, so the tolerance is larger.
    np.testing.assert_allclose(gradients[0], case["hidden_gradient"], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(gradients[1], case["head_gradient"], rtol=1e-5, atol=2e-6)
