"""From rollout and values to experience."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.experience import make_experience, summarize
from asyppo_jax.config import ConfigError
from tests.tiny import make_config, make_rollout

KEY = jax.random.key(5)


def _values(config, num_critics, seed=0):
    batch = config.sampling.num_prompts * config.sampling.group_size
    return jax.random.normal(jax.random.key(seed), (num_critics, batch, 9))


def _experience(num_critics=2, values=None, rollout=None, **changes):
    config = make_config(num_critics, **changes)
    rollout = make_rollout(config) if rollout is None else rollout
    values = _values(config, num_critics) if values is None else values
    return _program(config.algorithm)(rollout, values, KEY)


@functools.cache
def _program(algorithm):
    return jax.jit(functools.partial(make_experience, group_size=8, config=algorithm))


def test_padding_values_never_enter_an_advantage():
    """The trap: GAE on unmasked values lets the values of padding into the last real tokens."""
    config = make_config()
    rollout, values = make_rollout(config), _values(config, 2)
    poisoned = jnp.where(rollout.completion_mask, values, 1e6)
    clean, dirty = _experience(values=values), _experience(values=poisoned)
    np.testing.assert_array_equal(clean.advantages, dirty.advantages)
    np.testing.assert_array_equal(clean.returns, dirty.returns)
    np.testing.assert_array_equal(clean.advantage_mask, dirty.advantage_mask)


def test_a_row_without_a_valid_reward_takes_no_part():
    config = make_config()
    rollout, values = make_rollout(config), _values(config, 2)
    assert not rollout.reward_valid[3]
    other = rollout.replace(rewards=rollout.rewards.at[3].set(0.77))
    before = _experience(rollout=rollout, values=values)
    after = _experience(rollout=other, values=values.at[:, 3].set(123.0))
    for name in ("advantages", "returns", "loss_mask", "advantage_mask", "entropy_mask"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
    assert not before.loss_mask[3].any() and not before.advantages[3].any()


def test_at_gamma_and_lambda_one_the_return_is_the_final_reward():
    experience = _experience()
    expected = jnp.where(experience.loss_mask, experience.rollout.rewards[:, None], 0.0)
    np.testing.assert_allclose(experience.returns, expected, atol=1e-5)


def test_masks_drop_exact_shares_of_the_full_batch():
    experience = _experience(
        algorithm__advantage_mask_fraction=0.3, algorithm__entropy_mask_fraction=0.1
    )
    count = int(experience.loss_mask.sum())
    assert count - int(experience.advantage_mask.sum()) == round(0.3 * count)
    assert count - int(experience.entropy_mask.sum()) == round(0.1 * count)
    std = experience.value_std
    dropped_low = experience.loss_mask & ~experience.advantage_mask
    assert std[dropped_low].max() <= std[experience.advantage_mask].min()
    dropped_high = experience.loss_mask & ~experience.entropy_mask
    assert std[dropped_high].min() >= std[experience.entropy_mask].max()


def test_whitening_is_over_real_tokens_before_the_mask():
    experience = _experience()
    real = experience.advantages[experience.loss_mask]
    np.testing.assert_allclose([real.mean(), real.std()], [0.0, 1.0], atol=1e-4)


def test_whitening_after_the_mask_is_the_alternative():
    experience = _experience(algorithm__advantage_whitening="after_mask")
    kept = experience.advantages[experience.advantage_mask]
    np.testing.assert_allclose([kept.mean(), kept.std()], [0.0, 1.0], atol=1e-4)


def test_one_critic_has_no_disagreement_and_drops_nothing():
    experience = _experience(1)
    np.testing.assert_array_equal(experience.advantage_mask, experience.loss_mask)
    np.testing.assert_array_equal(experience.entropy_mask, experience.loss_mask)
    assert experience.critic_shards.all()


def test_without_critics_advantages_are_normalised_in_each_group():
    experience = _experience(0, algorithm__advantage_whitening="none")
    rollout = experience.rollout
    for start in range(0, 32, 8):
        rows = slice(start, start + 8)
        rewards = np.asarray(rollout.rewards)[rows][np.asarray(rollout.reward_valid)[rows]]
        expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
        first = np.asarray(experience.advantages)[rows, 0][np.asarray(rollout.reward_valid)[rows]]
        np.testing.assert_allclose(first, expected, rtol=1e-5)


@pytest.mark.parametrize("num_critics", [1, 2, 4, 8])
def test_every_critic_sees_every_prompt_and_no_response_twice(num_critics):
    shards = np.asarray(_experience(num_critics).critic_shards)
    np.testing.assert_array_equal(shards.sum(axis=0), 1)
    per_prompt = shards.reshape(num_critics, 4, 8).sum(axis=2)
    np.testing.assert_array_equal(per_prompt, 8 // num_critics)


def test_the_minimum_takes_the_place_of_the_mean_in_advantages_targets_and_metrics():
    """As if the critics were one, whose value is the minimum."""
    options: dict[str, Any] = {"algorithm__gae_lambda": 0.9, "algorithm__gamma": 0.95}
    config = make_config(2, algorithm__value_aggregation="min", **options)
    values = _values(config, 2)
    ours = _experience(values=values, algorithm__value_aggregation="min", **options)
    one = _experience(1, values=jnp.min(values, axis=0, keepdims=True), **options)
    for name in ("advantages", "returns"):
        np.testing.assert_allclose(getattr(ours, name), getattr(one, name), atol=1e-6)
    mean = _experience(values=values, **options)
    assert not np.allclose(ours.advantages, mean.advantages)
    np.testing.assert_array_equal(ours.advantage_mask, mean.advantage_mask)
    metrics, of_one = (summarize(x, 8, config.algorithm) for x in (ours, one))
    for name in (
        "critic/value_mean",
        "critic/explained_variance",
        "critic/explained_between_tokens",
    ):
        np.testing.assert_allclose(metrics[name], of_one[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("num_critics", [0, 1, 2])
@pytest.mark.parametrize("mask_by", ["entropy", "random"])
def test_masks_that_need_no_critics_drop_their_share_with_any_number_of_them(num_critics, mask_by):
    rollout = make_rollout(make_config())
    entropy = jax.random.uniform(KEY, rollout.completion_mask.shape)
    rollout = rollout.replace(entropy=entropy)
    experience = _experience(num_critics, rollout=rollout, algorithm__mask_by=mask_by)
    real = experience.loss_mask
    low, high = real & ~experience.advantage_mask, real & ~experience.entropy_mask
    count = int(real.sum())
    assert int(low.sum()) == int(high.sum()) == round(0.2 * count)
    if mask_by == "entropy":
        assert entropy[low].max() < entropy[real & ~low].min()
        assert entropy[high].min() > entropy[real & ~high].max()
    config = make_config(num_critics, algorithm__mask_by=mask_by).algorithm
    rate = summarize(experience, 8, config)["ensemble/entropy_mask_rate"]
    np.testing.assert_allclose(rate, round(0.2 * count) / count, atol=1e-6)


def test_what_the_masks_rank_changes_the_masks_alone():
    rollout = make_rollout(make_config())
    rollout = rollout.replace(entropy=jax.random.uniform(KEY, rollout.completion_mask.shape))
    by_std = _experience(rollout=rollout)
    by_entropy = _experience(rollout=rollout, algorithm__mask_by="entropy")
    assert (by_std.advantage_mask != by_entropy.advantage_mask).any()
    masks = {name: getattr(by_std, name) for name in ("advantage_mask", "entropy_mask")}
    jax.tree.map(np.testing.assert_array_equal, by_std, by_entropy.replace(**masks))


def test_masks_by_the_entropy_of_a_rollout_that_has_none_are_refused():
    with pytest.raises(ConfigError, match=r"mask_by is 'entropy', but this rollout has none"):
        _experience(algorithm__mask_by="entropy")


def test_the_summary_counts_invalid_rewards_and_leaves_them_out_of_the_mean():
    experience = _experience()
    config = make_config().algorithm
    metrics = jax.jit(summarize, static_argnums=(1, 2))(experience, 8, config)
    rollout = experience.rollout
    assert metrics["rollout/reward_invalid"] == 1
    valid = np.asarray(rollout.rewards)[np.asarray(rollout.reward_valid)]
    np.testing.assert_allclose(metrics["rollout/reward_mean"], valid.mean(), rtol=1e-6)
    count = int(experience.loss_mask.sum())
    rate = metrics["ensemble/advantage_mask_rate"]
    np.testing.assert_allclose(rate, round(0.2 * count) / count, atol=1e-6)
    assert {"critic/explained_variance_0", "critic/explained_variance_1"} <= metrics.keys()


def test_the_spread_of_rewards_over_all_answers_and_within_groups():
    config = make_config()
    rollout = make_rollout(config)
    rewards = jnp.repeat(jnp.array([0.0, 1.0, 0.25, 0.75]), 8).at[jnp.array([16, 24])].set(1.0)
    valid = jnp.ones(32, bool).at[24].set(False)  # the only reward of its group that differs
    experience = _experience(rollout=rollout.replace(rewards=rewards, reward_valid=valid))
    metrics = summarize(experience, 8, config.algorithm)
    assert metrics["rollout/groups_without_spread"] == 0.75
    expected = np.asarray(rewards)[np.asarray(valid)].std()
    np.testing.assert_allclose(metrics["rollout/reward_std"], expected, rtol=1e-6)


def _rollout_with_one_group_without_spread():
    """Four groups; all answers of the second have the reward 1, the others have a spread."""
    config = make_config()
    rewards = jnp.tile(jnp.array([0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]), 4).at[8:16].set(1.0)
    return make_rollout(config).replace(rewards=rewards)


@pytest.mark.parametrize(("num_critics", "choice"), [(0, "drop"), (2, "drop"), (2, "resample")])
def test_groups_without_spread_are_dropped_from_the_actors_mask_alone(num_critics, choice):
    rollout = _rollout_with_one_group_without_spread()
    kept, dropped = (
        _experience(num_critics, rollout=rollout, algorithm__zero_spread_groups=name)
        for name in ("keep", choice)
    )
    np.testing.assert_array_equal(kept.actor_mask, kept.loss_mask)
    of_group = (np.arange(32) // 8 == 1)[:, None]
    np.testing.assert_array_equal(dropped.actor_mask, dropped.loss_mask & ~of_group)
    same = kept.replace(actor_mask=dropped.actor_mask)
    jax.tree.map(np.testing.assert_array_equal, same, dropped)


def test_the_penalty_for_long_answers_reaches_advantages_and_returns_but_not_the_logged_reward():
    rollout = make_rollout(make_config())
    lengths = np.asarray(rollout.completion_mask).sum(axis=1)
    penalty = np.clip((9 - 4 - lengths) / 4, -1, 0)
    assert penalty.min() == -1 and penalty.max() == 0
    by_hand = rollout.replace(rewards=rollout.rewards + 0.5 * jnp.asarray(penalty, jnp.float32))
    options = {"algorithm__overlong_buffer": 4, "algorithm__overlong_penalty": 0.5}
    ours, expected = _experience(rollout=rollout, **options), _experience(rollout=by_hand)
    for name in ("advantages", "returns", "advantage_mask", "entropy_mask", "actor_mask"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(ours.rollout.rewards, rollout.rewards)
    metrics = summarize(ours, 8, make_config(**options).algorithm)
    valid = np.asarray(rollout.reward_valid)
    mean = np.asarray(rollout.rewards)[valid].mean()
    np.testing.assert_allclose(metrics["rollout/reward_mean"], mean, rtol=1e-6)
    parts = [metrics[f"critic/explained_between_{x}"] for x in ("prompts", "answers", "tokens")]
    np.testing.assert_allclose(sum(parts), metrics["critic/explained_variance"], rtol=1e-4)


def test_the_tasks_own_rewards_decide_which_groups_are_dropped():
    """The trap: the penalty gives a group without a right answer a spread, by length alone."""
    rollout = _rollout_with_one_group_without_spread()
    lengths = np.asarray(rollout.completion_mask)[8:16].sum(axis=1)
    assert len(set(np.maximum(lengths, 5))) > 1  # so the penalties of the group differ
    experience = _experience(
        0,
        rollout=rollout,
        algorithm__zero_spread_groups="drop",
        algorithm__overlong_buffer=4,
        algorithm__advantage_whitening="none",
    )
    assert np.asarray(experience.advantages)[8:16].any()
    assert not np.asarray(experience.actor_mask)[8:16].any()
