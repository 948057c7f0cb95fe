"""Every layout holds every sequence once, with what speaks of it, and gives it back."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.batching.layout import before_completions, lay_out, sequence_mean
from asyppo_jax.algorithm.batching.rows import Rows, UpdateRows
from asyppo_jax.config import BatchingConfig
from asyppo_jax.models.attention.segments import SharedPrompts, positions_of
from tests.algorithm.batching.test_packing import make_rows

GROUP, PROMPT, COMPLETION = 4, 5, 9
LAYOUTS = {
    "as they come": {},
    "packed": {"packing": True},
    "continuations": {"rows_per_prompt": 2},
    "packed continuations": {"rows_per_prompt": 2, "packing": True},
}


def grouped(seed=0, longest=COMPLETION):
    """Sixteen ragged sequences, four to a prompt; one of them counts nowhere."""
    rows = make_rows(seed, longest=longest)
    first = np.arange(16) // GROUP * GROUP
    return rows.replace(
        tokens=jnp.concatenate([rows.tokens[first, :PROMPT], rows.tokens[:, PROMPT:]], axis=1),
        segments=jnp.concatenate(
            [rows.segments[first, :PROMPT], rows.segments[:, PROMPT:]], axis=1
        ),
    )


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_tokens_positions_and_neighbours_come_back_as_they_were(name):
    rows, batching = grouped(), replace(BatchingConfig(), **LAYOUTS[name])

    @jax.jit
    def there_and_back(rows):
        laid, _, back = lay_out(rows, batching, GROUP)
        n = laid.mask.shape[1]
        positions = positions_of(laid.segments)
        told = laid.tokens[:, -n:], positions[:, -n:], before_completions(laid.tokens, laid)
        return laid.mask.sum(), back(jnp.stack(told, axis=-1))

    count, back = there_and_back(rows)
    assert count == rows.mask.sum()
    at = np.asarray(rows.mask)
    told = rows.tokens, positions_of(rows.segments), jnp.roll(rows.tokens, 1, axis=1)
    for i, expected in enumerate(told):
        np.testing.assert_array_equal(back[..., i][at], np.asarray(expected[:, PROMPT:])[at])
    if "packing" in LAYOUTS[name]:
        assert not np.asarray(back)[~at].any()


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_the_mean_of_a_sequence_and_its_gradient_are_the_same_in_every_layout(name):
    rows, batching = grouped(longest=4), replace(BatchingConfig(), **LAYOUTS[name])
    x = jax.random.normal(jax.random.key(3), rows.mask.shape)
    weights = jax.random.normal(jax.random.key(4), rows.mask.shape)

    @jax.jit
    @jax.grad
    def through_layout(x, restored):
        # `returns` and `advantages` travel with the tokens.
        carried = update_rows_of(rows).replace(returns=x, advantages=weights)
        laid, _, back = lay_out(carried, batching, GROUP)
        mean = sequence_mean(laid.returns, laid)
        loss = jnp.sum(jnp.where(laid.mask, laid.advantages * jnp.square(mean), 0.0))
        return loss + jnp.sum(jnp.where(rows.mask, restored * back(mean), 0.0))

    expected = np.zeros(x.shape)
    for i, mask in enumerate(np.asarray(rows.mask)):
        if mask.any():
            mean, total = x[i][mask].mean(), weights[i][mask].sum()
            expected[i][mask] = (2 * mean * total + weights[i][mask].sum()) / mask.sum()
    np.testing.assert_allclose(through_layout(x, weights), expected, rtol=1e-4, atol=1e-5)


def update_rows_of(rows):
    """The rows with all that an update knows of them, as zeros."""
    zeros = jnp.zeros(rows.mask.shape)
    names = ("old_log_probs", "advantages", "returns", "length_normalizer")
    return UpdateRows(
        tokens=rows.tokens,
        segments=rows.segments,
        mask=rows.mask,
        **dict.fromkeys(names, zeros),
        advantage_mask=rows.mask,
        entropy_mask=rows.mask,
    )


def test_short_completions_share_continuations_and_rows_in_use_come_first():
    rows = grouped(longest=4)
    batching = BatchingConfig(packing=True, rows_per_prompt=2)
    laid, num_rows = jax.jit(lambda r: lay_out(r, batching, GROUP)[:2])(rows)
    assert isinstance(laid.segments, SharedPrompts)
    assert laid.tokens.shape == (8, PROMPT + 2 * COMPLETION)
    used = np.asarray(laid.mask.any(axis=1))
    # Four completions of at most four tokens fit into two continuations of nine.
    assert num_rows == 4 and used[:4].all() and not used[4:].any()
    for group in range(4):
        np.testing.assert_array_equal(laid.tokens[group, :PROMPT], rows.tokens[4 * group, :PROMPT])


def test_a_long_completion_takes_a_continuation_of_its_own():
    rows = grouped()
    full = rows.replace(segments=rows.segments.at[:, PROMPT:].set(1), mask=jnp.ones_like(rows.mask))
    batching = BatchingConfig(packing=True, rows_per_prompt=2)
    assert jax.jit(lambda r: lay_out(r, batching, GROUP)[1])(full) == 8


def test_the_mean_over_a_long_sequence_is_exact_enough_in_bfloat16():
    length = 2000
    ones = jnp.ones((1, length), jnp.int32)
    rows = Rows(tokens=ones, segments=ones, mask=ones.astype(bool))
    x = jnp.arange(length, dtype=jnp.bfloat16)[None] / length
    np.testing.assert_allclose(sequence_mean(x, rows)[0, 0].astype(jnp.float32), 0.5, atol=0.01)
