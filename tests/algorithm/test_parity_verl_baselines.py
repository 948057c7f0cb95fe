"""Equality with verl's functions for the baselines, from `fixtures/verl_baselines.json`.

`fixtures/make_verl_baselines.py` made the file, which names verl's version. Where verl's definition
differs from ours, the test explains the difference and corrects for it.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.experience import make_experience
from asyppo_jax.algorithm.optimizer import learning_rate_schedule
from asyppo_jax.config import OptimizerConfig
from asyppo_jax.ops.aggregation import Aggregation, length_normalizer, loss_denominator
from asyppo_jax.ops.losses import clipped_surrogate
from asyppo_jax.ops.masked import masked_sum
from asyppo_jax.ops.returns import overlong_penalty
from asyppo_jax.types import Rollout
from tests.tiny import make_config

FIXTURE = Path(__file__).parents[1] / "fixtures" / "verl_baselines.json"
RECORDED = json.loads(FIXTURE.read_text())
AGGREGATIONS: dict[str, Aggregation] = {
    "token-mean": "token",
    "seq-mean-token-mean": "sequence",
    "seq-mean-token-sum-norm": "constant",
}
GROUP = 3


def cases(name):
    """One recorded case per test, its lists as arrays and its mask as bool."""
    return pytest.mark.parametrize("case", [as_arrays(case) for case in RECORDED[name]])


def as_arrays(case):
    arrays = {k: jnp.array(v) if isinstance(v, list) else v for k, v in case.items()}
    if "mask" in arrays:
        arrays["mask"] = arrays["mask"].astype(bool)
    return arrays


def our_advantages(case, **settings):
    """Advantages of the experience; the group of two gets a third answer without a valid reward."""
    changes = {f"algorithm__{name}": value for name, value in settings.items()}
    config = make_config(0, **changes).algorithm
    mask = np.pad(case["mask"], ((0, 1), (0, 0)), constant_values=True)
    rollout = Rollout(
        tokens=jnp.zeros((len(mask), 1 + mask.shape[1]), jnp.int32),
        prompt_mask=jnp.ones((len(mask), 1), bool),
        completion_mask=jnp.asarray(mask),
        log_probs=jnp.zeros(mask.shape),
        rewards=jnp.asarray([*case["rewards"], 0.5], jnp.float32),
        reward_valid=jnp.arange(len(mask)) < len(case["mask"]),
    )
    values = jnp.zeros((0, *mask.shape))
    experience = make_experience(
        rollout, values, jax.random.key(0), group_size=GROUP, config=config
    )
    return np.asarray(experience.advantages)[:-1]


def sample_std(mask):
    """The ratio of standard deviations: verl whitens with n - 1 in the variance, we with n."""
    count = mask.sum()
    return np.sqrt((count - 1) / count)


@cases("dr_grpo")
def test_unscaled_group_advantages_equal_verls(case):
    ours = our_advantages(case, advantages="grpo", group_scale="none", advantage_whitening="none")
    np.testing.assert_allclose(ours, case["token_advantages"], rtol=1e-6, atol=1e-7)


@cases("rloo")
def test_leave_one_out_advantages_equal_verls(case):
    # Not recorded: in a group of one, verl's loop gives the raw reward, its vectorized function 0,
    # as ours.
    ours = our_advantages(case, advantages="rloo", advantage_whitening="none")
    np.testing.assert_allclose(ours, case["token_advantages"], rtol=1e-6, atol=2e-7)


@cases("reinforce_plus_plus")
def test_reinforce_plus_plus_equals_verls_up_to_the_sample_variance(case):
    ours = our_advantages(case, advantages="reinforce_plus_plus", gamma=case["gamma"])
    ours = sample_std(case["mask"]) * ours
    np.testing.assert_allclose(ours, case["token_advantages"], rtol=1e-6, atol=1e-6)


@cases("reinforce_plus_plus_baseline")
def test_reinforce_plus_plus_with_baseline_equals_verls_up_to_the_sample_variance(case):
    # Not recorded: in a group of one, verl's is the raw reward, ours 0.
    ours = sample_std(case["mask"]) * our_advantages(
        case, advantages="reinforce_plus_plus_baseline"
    )
    np.testing.assert_allclose(ours, case["token_advantages"], rtol=1e-6, atol=1e-6)


@cases("dual_clip")
def test_the_dual_clip_its_gradient_and_its_share_equal_verls(case):
    # The ratios are below e^20, verl's clamp. A clip range of (0.2, 0.28).
    aggregation = AGGREGATIONS[case["loss_agg_mode"]]
    mask, advantages = case["mask"], case["advantages"]

    def loss(log_probs):
        surrogate, ratio = clipped_surrogate(
            log_probs,
            case["old_log_probs"],
            advantages,
            clip_eps_low=0.2,
            clip_eps_high=0.28,
            dual_clip=case["dual_clip"],
        )
        total = masked_sum(length_normalizer(mask, aggregation) * -surrogate, mask)
        return total / loss_denominator(mask, aggregation), ratio

    (value, ratio), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.asarray(case["log_probs"])
    )
    assert float(value) == pytest.approx(case["loss"], rel=1e-6, abs=1e-7)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-6, atol=1e-7)
    fraction = np.mean(((ratio > case["dual_clip"]) & (advantages < 0))[mask])
    assert case["fraction"] > 0 and fraction == pytest.approx(case["fraction"], rel=1e-6)


@cases("overlong")
def test_the_penalty_for_long_answers_equals_verls(case):
    penalty = overlong_penalty(
        jnp.asarray(case["lengths"]), max_length=case["max_length"], buffer=case["buffer"]
    )
    rewards = 1.0 + case["factor"] * np.asarray(penalty)
    np.testing.assert_allclose(rewards, case["rewards"], rtol=1e-6)


@cases("cosine")
def test_the_cosine_schedule_equals_verls(case):
    # verl counts the steps of the warm-up in its total; our `decay_steps` begin after it.
    config = OptimizerConfig(
        learning_rate=1.0,
        warmup_steps=case["warmup"],
        schedule="cosine",
        decay_steps=case["total"] - case["warmup"],
        final_fraction=case["final_fraction"],
    )
    rates = jax.vmap(learning_rate_schedule(config))(jnp.arange(case["total"] + 1))  # pyright: ignore
    np.testing.assert_allclose(rates, case["rates"], rtol=1e-6, atol=1e-7)
