"""Positions, visibility and neighbours by hand; tests of attention: test_self_attention."""

import jax.numpy as jnp
import numpy as np

from asyppo_jax.models.attention.segments import EVERY, Branches, positions_of, visible

# A prompt of three places, the first of them padding, and two branches of four: one completion of
# three tokens; completions of two tokens and of one.
SEGMENTS = jnp.array([[0, 1, 1, 1, 1, 1, 0, 1, 1, 2, 0]])
BRANCHES = Branches(SEGMENTS, prompt=3, count=2)


def test_positions_count_from_the_first_token_of_every_segment():
    segments = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 2, 2, 2]])
    expected = [[0, 0, 0, 1, 2], [0, 1, 2, 3, 0], [0, 1, 0, 1, 2]]
    np.testing.assert_array_equal(positions_of(segments), expected)


def test_every_completion_goes_on_where_its_prompt_ends():
    expected = [[0, 0, 1, 2, 3, 4, 0, 2, 3, 2, 0]]
    np.testing.assert_array_equal(positions_of(BRANCHES), expected)


def test_before_a_completion_lies_its_prompts_last_token():
    places = jnp.arange(11.0)[None]
    before = np.asarray(BRANCHES.before(places))[0]
    real = np.asarray(SEGMENTS[0, 3:] > 0)
    np.testing.assert_array_equal(before[real], [2, 3, 4, 2, 7, 2])
    deep = BRANCHES.before(jnp.stack([places, -places], axis=-1))
    np.testing.assert_array_equal(deep, np.stack([before, -before], axis=-1)[None])


def test_a_token_sees_its_own_segment_up_to_itself():
    segments = jnp.array([[0, 1, 1, 2]])
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(visible(segments, segments)[0], expected)


def test_a_branch_sees_its_prompt_and_no_padding_before_it():
    own, keys = BRANCHES.queries(SEGMENTS), BRANCHES.key_segments()
    np.testing.assert_array_equal(keys[1], [0, EVERY, EVERY, 1, 1, 2, 0])
    seen = np.asarray(visible(own, keys), int)
    np.testing.assert_array_equal(seen[0, 2], [0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(
        seen[1, :3], [[0, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 1, 0]]
    )


def test_the_keys_of_a_branch_begin_with_its_prompts():
    rows = jnp.stack([jnp.arange(11), jnp.arange(100, 111)])
    branches = Branches(jnp.concatenate([SEGMENTS, SEGMENTS]), prompt=3, count=2)
    expected = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 7, 8, 9, 10]]
    np.testing.assert_array_equal(branches.keys(rows)[:2], expected)
    np.testing.assert_array_equal(branches.keys(rows)[2:], np.add(expected, 100))
