"""Positions and visible keys of hand-made segments; attention itself: test_self_attention.py."""

import jax.numpy as jnp
import numpy as np

from asyppo_jax.models.attention.segments import (
    VISIBLE_TO_ALL,
    SharedPrompts,
    positions_of,
    visible,
)

# A prompt of three positions (the first is padding) and two continuations of four positions: the
# first with a completion of three tokens, the second with completions of two tokens and of one.
SEGMENTS = jnp.array([[0, 1, 1, 1, 1, 1, 0, 1, 1, 2, 0]])
SHARED = SharedPrompts(SEGMENTS, prompt_length=3, count=2)


def test_positions_count_from_the_first_token_of_every_segment():
    segments = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 2, 2, 2]])
    expected = [[0, 0, 0, 1, 2], [0, 1, 2, 3, 0], [0, 1, 0, 1, 2]]
    np.testing.assert_array_equal(positions_of(segments), expected)


def test_positions_of_completions_start_at_the_length_of_their_prompt():
    expected = [[0, 0, 1, 2, 3, 4, 0, 2, 3, 2, 0]]
    np.testing.assert_array_equal(positions_of(SHARED), expected)


def test_the_token_before_a_completion_is_its_prompts_last_token():
    index = jnp.arange(11.0)[None]
    before = np.asarray(SHARED.before(index))[0]
    real = np.asarray(SEGMENTS[0, 3:] > 0)
    np.testing.assert_array_equal(before[real], [2, 3, 4, 2, 7, 2])
    with_features = SHARED.before(jnp.stack([index, -index], axis=-1))
    np.testing.assert_array_equal(with_features, np.stack([before, -before], axis=-1)[None])


def test_a_token_sees_its_own_segment_up_to_itself():
    segments = jnp.array([[0, 1, 1, 2]])
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(visible(segments, segments)[0], expected)


def test_a_continuation_sees_its_prompt_but_not_the_prompts_padding():
    queries, keys = SHARED.queries(SEGMENTS), SHARED.key_segments()
    np.testing.assert_array_equal(keys[1], [0, VISIBLE_TO_ALL, VISIBLE_TO_ALL, 1, 1, 2, 0])
    mask = np.asarray(visible(queries, keys), int)
    np.testing.assert_array_equal(mask[0, 2], [0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(
        mask[1, :3], [[0, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 1, 0]]
    )


def test_the_keys_of_a_continuation_start_with_its_prompts():
    rows = jnp.stack([jnp.arange(11), jnp.arange(100, 111)])
    continuations = SharedPrompts(jnp.concatenate([SEGMENTS, SEGMENTS]), prompt_length=3, count=2)
    expected = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 7, 8, 9, 10]]
    np.testing.assert_array_equal(continuations.keys(rows)[:2], expected)
    np.testing.assert_array_equal(continuations.keys(rows)[2:], np.add(expected, 100))
