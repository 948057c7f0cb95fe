"""What the updates read of an experience, one sequence per row."""

import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.batching.layout import sequence_mean
from asyppo_jax.algorithm.batching.rows import (
    as_critics_read,
    loss_rows,
    sequence_segments,
    update_rows,
)
from asyppo_jax.config import ConfigError, ValueConfig


def test_a_sequences_factors_add_up_to_one_and_padding_has_none(setting):
    _, _, _, experience = setting
    rows = update_rows(experience, "sequence")
    mask = np.asarray(experience.loss_mask)
    assert not np.asarray(rows.length_normalizer)[~mask].any()
    total = np.asarray(rows.length_normalizer).sum(axis=1)
    np.testing.assert_allclose(total, mask.any(axis=1).astype(float), rtol=1e-6)


def test_rows_of_arrays_have_one_answer_each_and_one_shape():
    mask = jnp.array([[True, True, False], [True, True, True]])
    rows = loss_rows(jnp.zeros((2, 3)), jnp.ones((2, 3)), mask)
    mean = sequence_mean(jnp.array([[1.0, 3.0, 9.0], [1.0, 2.0, 6.0]]), rows)
    np.testing.assert_array_equal(mean, [[2, 2, 0], [3, 3, 3]])
    np.testing.assert_allclose(rows.length_normalizer, [[1 / 2, 1 / 2, 0], [1 / 3] * 3])
    np.testing.assert_array_equal(rows.advantage_mask, mask)
    one = loss_rows(rows.old_log_probs, rows.advantages, mask, entropy_mask=~mask)
    np.testing.assert_array_equal(one.entropy_mask, ~mask)
    np.testing.assert_array_equal(one.advantage_mask, mask)
    with pytest.raises(ValueError, match=r"loss_rows takes .*shapes given are \[2, 3\], \[2\]"):
        loss_rows(jnp.zeros((2, 3)), jnp.ones(2), mask)
    with pytest.raises(ValueError, match=r"entropy_mask \[R, n\], and the shapes given .* \[3\]$"):
        loss_rows(jnp.zeros((2, 3)), jnp.ones((2, 3)), mask, entropy_mask=mask[0])


def test_the_actors_mask_replaces_the_loss_mask_only_where_it_is_given(setting):
    _, _, _, experience = setting
    smaller = experience.replace(actor_mask=experience.loss_mask.at[:8].set(False))
    for rows, expected in (
        (update_rows(smaller, "sequence"), experience.loss_mask),
        (update_rows(smaller, "sequence", smaller.actor_mask), smaller.actor_mask),
    ):
        np.testing.assert_array_equal(rows.mask, expected)
        np.testing.assert_array_equal(np.asarray(rows.length_normalizer) > 0, expected)


def test_segments_are_true_on_real_tokens_of_prompt_and_completion(setting):
    _, _, _, experience = setting
    rollout = experience.rollout
    segments = np.asarray(sequence_segments(rollout))
    prompt = rollout.prompt_mask.shape[1]
    np.testing.assert_array_equal(segments[:, :prompt] == 1, rollout.prompt_mask)
    np.testing.assert_array_equal(segments[:, prompt:] == 1, rollout.completion_mask)


def test_critics_read_the_reference_answer_in_front_and_the_same_completions(setting):
    rollout = setting[3].rollout
    plain, on = ValueConfig(), ValueConfig(reference_answer="{answer}")
    assert as_critics_read(rollout, plain) is rollout
    with pytest.raises(ConfigError, match="this rollout has none"):
        as_critics_read(rollout, on)
    batch, prompt = rollout.prompt_mask.shape
    own = jnp.full((batch, prompt + 3), 7, jnp.int32)
    given = rollout.replace(critic_prompt=own, critic_prompt_mask=own > 0)
    seen = as_critics_read(given, on)
    np.testing.assert_array_equal(seen.tokens[:, : prompt + 3], own)
    np.testing.assert_array_equal(seen.tokens[:, prompt + 3 :], rollout.tokens[:, prompt:])
    assert sequence_segments(seen).shape == (batch, rollout.tokens.shape[1] + 3)
