"""The critics' disagreement, the masks ranked by it, and the critics' shards of each group."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyppo_jax.ops import ensemble

KEY = jax.random.key(0)
SHAPE = (4, 6)
FULL = jnp.ones(SHAPE, bool)
# Three padding positions in row 0, five in row 2; 16 real tokens.
RAGGED = jnp.asarray(np.arange(6) < np.array([3, 6, 1, 6])[:, None])


@functools.cache
def jitted_masks(low, high):
    return jax.jit(
        functools.partial(
            ensemble.disagreement_masks, advantage_mask_fraction=low, entropy_mask_fraction=high
        )
    )


def masks(value_std, mask, low, high, key=KEY):
    return [np.asarray(m) for m in jitted_masks(low, high)(value_std, mask, key)]


jitted_shards = jax.jit(
    ensemble.critic_shards,
    static_argnames=("num_prompts", "group_size", "num_critics", "critic_data"),
)


def distinct_std(seed=0):
    """Every token a different σ, in no order."""
    ranks = np.random.default_rng(seed).permutation(24).reshape(SHAPE)
    return jnp.asarray(0.1 + 0.01 * ranks, jnp.float32)


def test_mean_and_std_of_a_hand_computed_example():
    # Two critics predict 0 and 2: mean 1, population std 1. Both predict 5: std 0.
    values = jnp.array([[[0.0, 5.0]], [[2.0, 5.0]]])
    mean, std = ensemble.value_mean_and_std(values)
    np.testing.assert_array_equal(mean, [[1.0, 5.0]])
    np.testing.assert_array_equal(std, [[1.0, 0.0]])


@pytest.mark.parametrize("num_critics", [1, 2, 3, 5, 8])
def test_mean_and_std_equal_a_slow_loop(num_critics):
    values = np.random.default_rng(0).standard_normal((num_critics, 2, 3)).astype(np.float32)
    mean, std = ensemble.value_mean_and_std(jnp.asarray(values))
    for b in range(2):
        for t in range(3):
            predicted = [float(values[k, b, t]) for k in range(num_critics)]
            slow_mean = sum(predicted) / num_critics
            slow_std = (sum((v - slow_mean) ** 2 for v in predicted) / num_critics) ** 0.5
            assert mean[b, t] == pytest.approx(slow_mean, rel=1e-6, abs=1e-6)
            assert std[b, t] == pytest.approx(slow_std, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("num_critics", [2, 3, 5, 7, 8])
def test_critics_that_agree_exactly_have_a_std_of_exactly_zero(num_critics):
    # If the mean were rounded, σ would be about 1e-7, and the masks would rank rounding errors.
    shared_values = jax.random.normal(KEY, (50, 40))
    values = jnp.broadcast_to(shared_values, (num_critics, 50, 40))
    for function in (ensemble.value_mean_and_std, jax.jit(ensemble.value_mean_and_std)):
        np.testing.assert_array_equal(function(values)[1], 0.0)


@pytest.mark.parametrize("num_critics", [1, 2, 5])
def test_the_value_of_the_ensemble_is_the_mean_or_the_minimum_without_a_gradient(num_critics):
    values = np.random.default_rng(0).standard_normal((num_critics, 2, 3)).astype(np.float32)
    mean, std = ensemble.value_mean_and_std(jnp.asarray(values))
    np.testing.assert_array_equal(ensemble.ensemble_value(jnp.asarray(values)), mean)
    lowest = ensemble.ensemble_value(jnp.asarray(values), "min")
    np.testing.assert_array_equal(lowest, values.min(axis=0))
    if num_critics == 2:  # the lower of two is one standard deviation below their mean
        np.testing.assert_allclose(lowest, mean - std, rtol=1e-5)
    gradient = jax.grad(lambda v: jnp.sum(ensemble.ensemble_value(v, "min")))(jnp.asarray(values))
    np.testing.assert_array_equal(gradient, 0.0)


def test_masks_by_the_entropy_are_those_of_a_sort_of_it_whatever_sigma_is():
    entropy = np.asarray(distinct_std(3))
    scores = ensemble.mask_scores(distinct_std(4), jnp.asarray(entropy), "entropy")
    real = np.asarray(RAGGED)
    advantage_mask, entropy_mask = masks(scores, RAGGED, 0.25, 0.2)
    # 16 real tokens: 4 with the lowest entropy, round(3.2) = 3 with the highest.
    ranked = np.sort(entropy[real])
    np.testing.assert_array_equal(np.sort(entropy[real & ~advantage_mask]), ranked[:4])
    np.testing.assert_array_equal(np.sort(entropy[real & ~entropy_mask]), ranked[-3:])


def test_random_masks_have_the_same_size_and_drop_every_token_equally_often():
    scores = ensemble.mask_scores(jnp.zeros(SHAPE), None, "random")
    draw = jax.vmap(jitted_masks(0.25, 0.125), in_axes=(None, None, 0))
    drawn = draw(scores, RAGGED, jax.random.split(KEY, 400))
    real = np.asarray(RAGGED)
    for token_mask, dropped in zip(drawn, (4, 2), strict=True):
        lost = real & ~np.asarray(token_mask)
        np.testing.assert_array_equal(lost.sum(axis=(1, 2)), dropped)
        expected = 400 * dropped / 16
        assert np.abs(lost.sum(axis=0)[real] - expected).max() < 4.5 * np.sqrt(expected)
    both = ~np.asarray(drawn[0]) & ~np.asarray(drawn[1]) & real
    assert not both.any(), "one ranking: no token is dropped by both masks"


def test_scores_by_sigma_are_sigma_and_a_missing_entropy_is_a_clear_error():
    np.testing.assert_array_equal(ensemble.mask_scores(distinct_std(), None), distinct_std())
    with pytest.raises(ValueError, match="no entropy is given; give it, or use 'std'"):
        ensemble.mask_scores(distinct_std(), None, "entropy")


def test_no_gradient_flows_through_the_std_which_would_be_nan_at_equal_values():
    values = jnp.ones((2, 1, 3))
    naive = jax.grad(lambda v: jnp.sum(jnp.std(v, axis=0)))(values)
    assert np.isnan(naive).all()

    def loss(v):
        mean, std = ensemble.value_mean_and_std(v)
        return jnp.sum(mean + std) + jnp.sum(jnp.square(v))

    np.testing.assert_array_equal(jax.grad(loss)(values), 2 * values)


def test_masks_of_a_hand_computed_example():
    # Ten real tokens and two padding tokens. 0.2 * 10 = 2 lowest: 0.1 and 0.2. 0.3 * 10 = 3
    # highest: 1.0, 0.9 and 0.8. If padding counted, it would be the lowest and the highest.
    value_std = jnp.array([[0.5, 1.0, 0.1, 0.4, 0.9, 0.0], [0.2, 0.3, 0.6, 0.7, 0.8, 99.0]])
    mask = (value_std > 0) & (value_std < 99)
    advantage_mask, entropy_mask = masks(value_std, mask, 0.2, 0.3)
    np.testing.assert_array_equal(
        advantage_mask, [[1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0]], strict=False
    )
    np.testing.assert_array_equal(
        entropy_mask, [[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]], strict=False
    )


@settings(max_examples=60, deadline=None)
@given(
    levels=st.lists(st.integers(0, 3), min_size=24, max_size=24),
    lengths=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    fractions=st.sampled_from([(0.2, 0.2), (0.0, 0.37), (0.5, 0.5), (0.9, 0.1)]),
    seed=st.integers(0, 1000),
)
def test_exactly_the_requested_number_of_tokens_is_dropped_by_rank_despite_ties(
    levels, lengths, fractions, seed
):
    value_std = jnp.asarray(levels, jnp.float32).reshape(SHAPE)
    mask = jnp.asarray(np.arange(6) < np.array(lengths)[:, None])
    advantage_mask, entropy_mask = masks(value_std, mask, *fractions, key=jax.random.key(seed))
    std, real = np.asarray(value_std), np.asarray(mask)
    count, all_equal_zero = real.sum(), not std[real].any()
    # The count is rounded to the nearest integer; either neighbour is right for a half.
    for token_mask, fraction in zip((advantage_mask, entropy_mask), fractions, strict=True):
        assert not token_mask[~real].any()
        dropped = (real & ~token_mask).sum()
        assert abs(dropped - (0 if all_equal_zero else fraction * count)) <= 0.5 + 1e-4
    low, high = std[real & ~advantage_mask], std[real & ~entropy_mask]
    assert low.max(initial=-1) <= std[advantage_mask].min(initial=99)
    assert high.min(initial=99) >= std[entropy_mask].max(initial=-1)
    # Both masks use one ranking, so a token is dropped by both only if the counts exceed n together
    # (k = h = 0.5 and n = 7: both are rounded to 4).
    dropped_by_both = (real & ~advantage_mask & ~entropy_mask).sum()
    assert dropped_by_both == max(0, len(low) + len(high) - count)


def test_ranks_drop_the_right_number_of_equal_values_where_a_threshold_cannot():
    value_std = jnp.full(SHAPE, 0.3)
    threshold = jnp.quantile(value_std, 0.25)
    assert not (value_std > threshold).any(), "a threshold with `<=` drops everything"
    assert (value_std >= threshold).all(), "a threshold with `<` drops nothing"
    advantage_mask, entropy_mask = masks(value_std, FULL, 0.25, 0.5)
    assert (~advantage_mask).sum() == 6  # 0.25 * 24
    assert (~entropy_mask).sum() == 12


def test_ties_are_broken_at_random_and_not_by_position():
    value_std = jnp.full((2, 5), 0.3)
    draw = jax.vmap(jitted_masks(0.2, 0.2), in_axes=(None, None, 0))
    drawn = draw(value_std, jnp.ones((2, 5), bool), jax.random.split(KEY, 400))
    dropped = [np.sum(~np.asarray(token_mask), axis=0) for token_mask in drawn]
    # Each token should be dropped in 80 of 400 draws (standard deviation 8). If position broke the
    # ties, the first two tokens would be dropped 400 times.
    for counts in dropped:
        assert counts.min() > 40
        assert counts.max() < 120


def test_the_key_changes_only_how_ties_are_broken():
    value_std = distinct_std()
    first = masks(value_std, RAGGED, 0.2, 0.2, key=jax.random.key(1))
    second = masks(value_std, RAGGED, 0.2, 0.2, key=jax.random.key(2))
    np.testing.assert_array_equal(first, second)
    tied = [masks(jnp.ones(SHAPE), FULL, 0.5, 0.5, key=jax.random.key(k)) for k in (1, 1, 2)]
    np.testing.assert_array_equal(tied[0], tied[1])
    assert not np.array_equal(tied[0], tied[2])


def test_masks_depend_only_on_the_ranks_of_the_disagreement():
    value_std = distinct_std()
    expected = masks(value_std, RAGGED, 0.2, 0.3)
    for transformed in (1e-6 * value_std, jnp.exp(20 * value_std), 5 + value_std):
        np.testing.assert_array_equal(masks(transformed, RAGGED, 0.2, 0.3), expected)


def test_tokens_are_ranked_over_the_batch_and_not_per_sequence():
    # The six lowest of 24 are all in row 2, the six highest all in row 0: full rows are dropped.
    value_std = jnp.array([[4.0], [2.0], [1.0], [3.0]]) + 0.01 * jnp.arange(6.0)[None, :]
    advantage_mask, entropy_mask = masks(value_std, FULL, 0.25, 0.25)
    np.testing.assert_array_equal(advantage_mask.sum(axis=1), [6, 6, 0, 6])
    np.testing.assert_array_equal(entropy_mask.sum(axis=1), [0, 6, 6, 6])


@pytest.mark.parametrize("padding", [-1.0, 0.0, jnp.inf, jnp.nan])
def test_the_disagreement_on_padding_is_ignored(padding):
    value_std = distinct_std()
    expected = masks(value_std, RAGGED, 0.25, 0.25)
    assert (np.asarray(RAGGED) & ~expected[0]).sum() == 4  # 0.25 * 16
    dirty = jnp.where(RAGGED, value_std, padding)
    np.testing.assert_array_equal(masks(dirty, RAGGED, 0.25, 0.25), expected)


def test_without_any_disagreement_both_masks_keep_every_real_token():
    # In the second case the critics disagree on padding only, which must not count.
    for value_std in (jnp.zeros(SHAPE), jnp.where(RAGGED, 0.0, 3.0)):
        for token_mask in masks(value_std, RAGGED, 0.2, 0.2):
            np.testing.assert_array_equal(token_mask, RAGGED)


def test_one_critic_keeps_every_real_token():
    _, std = ensemble.value_mean_and_std(jax.random.normal(KEY, (1, *SHAPE)))
    for token_mask in masks(std, RAGGED, 0.2, 0.2):
        np.testing.assert_array_equal(token_mask, RAGGED)


def test_fractions_of_zero_keep_every_real_token():
    for token_mask in masks(distinct_std(), RAGGED, 0.0, 0.0):
        np.testing.assert_array_equal(token_mask, RAGGED)


def test_a_batch_without_real_tokens_has_empty_masks():
    for token_mask in masks(distinct_std(), jnp.zeros(SHAPE, bool), 0.2, 0.2):
        assert not token_mask.any()


def test_masked_rank_gives_padding_the_last_ranks():
    rank = ensemble.masked_rank(jnp.array([[3.0, 0.0, 1.0, jnp.inf]]), FULL[:1, :4], KEY)
    np.testing.assert_array_equal(rank, [[2, 0, 1, 3]])
    mask = jnp.array([[True, False, True, True]])
    rank = ensemble.masked_rank(jnp.array([[3.0, 0.0, 1.0, jnp.inf]]), mask, KEY)
    np.testing.assert_array_equal(rank, [[1, 3, 0, 2]])


@pytest.mark.parametrize(("group_size", "num_critics"), [(2, 2), (8, 2), (6, 3), (4, 4), (8, 1)])
def test_shards_are_disjoint_and_of_equal_size_in_every_group(group_size, num_critics):
    shards = jitted_shards(KEY, num_prompts=5, group_size=group_size, num_critics=num_critics)
    assert shards.shape == (num_critics, 5 * group_size)
    assert shards.dtype == bool
    np.testing.assert_array_equal(shards.sum(axis=0), 1)
    per_group = shards.reshape(num_critics, 5, group_size).sum(axis=2)
    np.testing.assert_array_equal(per_group, group_size // num_critics)


def test_shards_are_random_in_every_group_and_every_step():
    def draw(seed):
        shards = jitted_shards(jax.random.key(seed), num_prompts=200, group_size=4, num_critics=2)
        return np.asarray(shards[0]).reshape(200, 4)

    first = draw(0)
    np.testing.assert_array_equal(first, draw(0))
    assert not np.array_equal(first, draw(1))
    # All 4-choose-2 = 6 ways to split a group occur, and critic 0 gets each response in about 100
    # of 200 groups (standard deviation 7).
    assert len(np.unique(first, axis=0)) == 6
    assert np.abs(first.sum(axis=0) - 100).max() < 35


@pytest.mark.parametrize(("num_prompts", "num_critics"), [(2, 2), (8, 2), (6, 3), (5, 1)])
def test_divided_prompts_belong_with_all_their_answers_to_one_critic(num_prompts, num_critics):
    sizes = {"num_prompts": num_prompts, "group_size": 4, "num_critics": num_critics}
    shards = np.asarray(jitted_shards(KEY, **sizes, critic_data="prompts"))
    np.testing.assert_array_equal(shards.sum(axis=0), 1)
    per_prompt = shards.reshape(num_critics, num_prompts, 4)
    np.testing.assert_array_equal(per_prompt.min(axis=2), per_prompt.max(axis=2))
    np.testing.assert_array_equal(per_prompt[..., 0].sum(axis=1), num_prompts // num_critics)


def test_prompts_are_divided_at_random():
    sizes = {"num_prompts": 4, "group_size": 3, "num_critics": 2, "critic_data": "prompts"}
    draws = {
        tuple(np.asarray(jitted_shards(jax.random.key(i), **sizes))[0, ::3]) for i in range(60)
    }
    assert len(draws) == 6  # all 4-choose-2


def test_without_a_division_every_critic_sees_every_response():
    sizes = {"num_prompts": 5, "group_size": 4, "num_critics": 3}  # 3 divides neither
    assert jitted_shards(KEY, **sizes, critic_data="all").all()


def test_prompts_that_cannot_be_split_evenly_are_a_clear_error():
    with pytest.raises(ValueError, match=r"3 critics cannot split 8 prompts .* multiple of"):
        ensemble.critic_shards(
            KEY, num_prompts=8, group_size=3, num_critics=3, critic_data="prompts"
        )


def test_a_group_that_cannot_be_split_evenly_is_a_clear_error():
    with pytest.raises(ValueError, match=r"3 critics cannot split a group of 8 .* multiple of"):
        ensemble.critic_shards(KEY, num_prompts=2, group_size=8, num_critics=3)


def test_compiled_and_batched_variants_agree(assert_variants_agree):
    values = jax.random.normal(KEY, (3, 2, *SHAPE))
    assert_variants_agree(ensemble.value_mean_and_std, values)
    function = functools.partial(
        ensemble.disagreement_masks, advantage_mask_fraction=0.2, entropy_mask_fraction=0.3
    )
    keys = jax.random.split(KEY, 3)
    value_std = jnp.stack([distinct_std(0), jnp.ones(SHAPE), jnp.zeros(SHAPE)])
    assert_variants_agree(function, value_std, jnp.stack([RAGGED, FULL, RAGGED]), keys)
