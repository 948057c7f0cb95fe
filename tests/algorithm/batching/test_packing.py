"""A plan that loses and overlaps nothing, and rows that come back as they were."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asyppo_jax.algorithm.batching.packing import first_fit, pack, plan_packing, plan_rows, unpack
from asyppo_jax.algorithm.batching.rows import Rows

CAPACITY, COUNT = 12, 10
plan = jax.jit(plan_packing, static_argnums=1)


def make_rows(seed=0, count=16, prompt=5, completion=9, longest=9):
    """Ragged prompts, padded on the left, and ragged completions; row 3 counts nowhere."""
    rng = np.random.default_rng(seed)
    prompts = np.arange(prompt)[None] >= rng.integers(0, prompt, count)[:, None]
    real = np.arange(completion)[None] < rng.integers(1, longest + 1, count)[:, None]
    segments = np.concatenate([prompts, real], axis=1).astype(np.int32)
    return Rows(
        tokens=jnp.asarray(rng.integers(1, 99, segments.shape), jnp.int32),
        segments=jnp.asarray(segments),
        mask=jnp.asarray(real & (np.arange(count) != 3)[:, None]),
    )


@given(st.lists(st.integers(0, CAPACITY), min_size=COUNT, max_size=COUNT))
def test_every_token_has_one_position_and_no_row_is_overfull(lengths):
    packing = jax.tree.map(np.asarray, plan(jnp.asarray(lengths, jnp.int32), CAPACITY))
    seen = [[] for _ in lengths]
    for r, t in zip(*np.nonzero(packing.segments), strict=True):
        sequence = packing.sequence[r, t]
        assert packing.row[sequence] == r
        assert packing.start[sequence] + packing.token[r, t] == t
        seen[sequence].append(packing.token[r, t])
    assert [list(range(n)) for n in lengths] == seen
    used = (packing.segments > 0).any(axis=1)
    assert used.sum() == packing.num_rows and used[: packing.num_rows].all()
    for r in range(COUNT):  # one number a sequence, so that attention cannot mix two
        pairs = set(zip(packing.segments[r], packing.sequence[r], strict=True))
        pairs = {pair for pair in pairs if pair[0] > 0}
        assert len(pairs) == len({s for s, _ in pairs}) == len({q for _, q in pairs})


@given(st.lists(st.integers(1, CAPACITY), min_size=COUNT, max_size=COUNT))
def test_the_rows_in_use_are_few(lengths):
    """First-fit: at most one row is half empty, so Σ lengths > (rows − 1) · L / 2."""
    num_rows = int(plan(jnp.asarray(lengths, jnp.int32), CAPACITY).num_rows)
    fewest = -(-sum(lengths) // CAPACITY)
    assert fewest <= num_rows <= max(1, 2 * fewest)


def test_ragged_answers_need_hardly_more_rows_than_tokens_alone_would():
    rng = np.random.default_rng(0)
    for _ in range(5):
        lengths = np.minimum(rng.lognormal(np.log(40), 0.8, 128), 192).astype(np.int32)
        num_rows = int(plan(jnp.asarray(lengths), 224).num_rows)
        assert num_rows <= -(-lengths.sum() // 224) + 1


def test_the_longest_goes_first_and_each_into_the_first_row_with_room():
    # By hand, rows of 8: 6 | 5, then 3 behind the 5, 2 behind the 6, and 1 into a row of its own.
    row, start, num_rows, order = first_fit(jnp.array([2, 6, 3, 5, 1]), 8)
    np.testing.assert_array_equal(order, [1, 3, 2, 0, 4])
    np.testing.assert_array_equal(row, [0, 0, 1, 1, 2])
    np.testing.assert_array_equal(start, [6, 0, 5, 0, 0])
    assert num_rows == 3


def test_packed_rows_hold_every_sequence_with_its_mask_and_nothing_else():
    rows = make_rows()
    packing = plan_rows(rows)
    result = jax.jit(pack)(rows, packing)
    assert result.tokens.shape == (16, 14) and result.mask.shape == (16, 13)
    for s in range(16):
        real = np.asarray(rows.segments[s] > 0)
        r, start, length = int(packing.row[s]), int(packing.start[s]), int(real.sum())
        if s == 3:  # without a reward: left out
            assert not (packing.sequence[packing.segments > 0] == 3).any()
            continue
        place = slice(start, start + length)
        np.testing.assert_array_equal(result.tokens[r, place], rows.tokens[s][real])
        whole_mask = np.concatenate([np.zeros(5, bool), rows.mask[s]])[real]
        np.testing.assert_array_equal(np.append(False, result.mask[r])[place], whole_mask)
    empty = np.asarray(result.segments == 0)
    assert not np.asarray(result.tokens)[empty].any()
    assert result.mask.sum() == rows.mask.sum()
    assert packing.num_rows < 16


def test_what_is_packed_comes_back():
    rows = make_rows(1)
    packing = plan_rows(rows)
    result = pack(rows, packing)
    spoken = jnp.stack([result.tokens[:, 1:], -result.tokens[:, 1:]], axis=-1)
    back = jax.jit(unpack)(spoken, rows, packing)
    expected = jnp.where(rows.mask, rows.tokens[:, 5:], 0)
    np.testing.assert_array_equal(back[..., 0], expected)
    np.testing.assert_array_equal(back[..., 1], -expected)
