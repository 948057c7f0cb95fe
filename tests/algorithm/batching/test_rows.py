"""What the updates read of an experience, one sequence per row."""

import numpy as np

from asyppo_jax.algorithm.batching.rows import sequence_segments, update_rows


def test_a_sequences_factors_add_up_to_one_and_padding_has_none(setting):
    _, _, _, experience = setting
    rows = update_rows(experience, "sequence")
    mask = np.asarray(experience.loss_mask)
    assert not np.asarray(rows.length_normalizer)[~mask].any()
    total = np.asarray(rows.length_normalizer).sum(axis=1)
    np.testing.assert_allclose(total, mask.any(axis=1).astype(float), rtol=1e-6)


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
