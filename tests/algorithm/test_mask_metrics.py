"""What the masks take away, and how σ's ranks agree with the entropy's: numbers by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.batching.rows import UpdateRows
from asyppo_jax.algorithm.mask_metrics import _overlap, mask_metrics, mask_sums
from asyppo_jax.config import AlgorithmConfig

# One row of six tokens, of which the last is padding.
MASK = jnp.array([[True] * 5 + [False]])
ADVANTAGES = jnp.array([[1.0, -2.0, 2.0, 1.0, -1.0, 9.0]])
RATIO = jnp.array([[1.0, 1.0, 1.0, 1.5, 0.5, 1.0]])
ENTROPY = jnp.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.0]])


def rows(dropped_lowest, dropped_highest) -> UpdateRows:
    keep = lambda dropped: MASK & ~jnp.isin(jnp.arange(6), jnp.array(dropped))[None]  # noqa: E731
    zeros = jnp.zeros((1, 6))
    return UpdateRows(
        tokens=jnp.zeros((1, 8), jnp.int32),
        segments=jnp.ones((1, 8), jnp.int32),
        mask=MASK,
        old_log_probs=zeros,
        advantages=ADVANTAGES,
        returns=zeros,
        length_normalizer=MASK / 5.0,
        advantage_mask=keep(dropped_lowest),
        entropy_mask=keep(dropped_highest),
    )


def metrics(dropped_lowest, dropped_highest):
    sums = mask_sums(RATIO, ENTROPY, rows(dropped_lowest, dropped_highest), AlgorithmConfig())
    return mask_metrics({name: jnp.array([x, x]) for name, x in sums.items()})  # two minibatches


def test_the_share_of_the_gradient_is_of_the_squares_of_rho_times_a_where_no_clip_holds():
    # ρ of the last two is beyond the clip in the direction of their advantage: gradient 0.
    # The squares of the others are 1, 4 and 4, up to one factor.
    assert metrics([1], [4])["actor/advantage_mask_gradient"] == pytest.approx(4 / 9)
    assert metrics([3], [4])["actor/advantage_mask_gradient"] == 0.0


def test_the_share_of_the_bonus_is_of_the_entropy():
    assert metrics([0], [4])["actor/entropy_mask_bonus"] == pytest.approx(0.5 / 1.5)


def test_masks_that_do_not_rank_by_sigma_have_no_metrics_of_it():
    sums = mask_sums(RATIO, ENTROPY, rows([1], [4]), AlgorithmConfig(mask_by="random"))
    of_masks = mask_metrics({name: jnp.array([x, x]) for name, x in sums.items()})
    assert of_masks.keys() == {"actor/advantage_mask_gradient", "actor/entropy_mask_bonus"}
    assert of_masks["actor/advantage_mask_gradient"] == pytest.approx(4 / 9)


@pytest.mark.parametrize(
    ("lowest", "highest", "found"), [([0, 1], [3, 4], 2), ([0, 4], [4, 0], 1), ([3, 4], [0, 1], 0)]
)
def test_the_overlap_of_the_ranks_less_that_of_independent_ones(lowest, highest, found):
    # Two of five tokens are chosen: independent ranks share 4/5 of a token, equal ones 2.
    expected = (found - 4 / 5) / (2 - 4 / 5)
    overlap = metrics(lowest, highest)
    assert overlap["ensemble/low_std_low_entropy"] == pytest.approx(expected)
    assert overlap["ensemble/high_std_high_entropy"] == pytest.approx(expected)


def test_independent_ranks_overlap_by_0_in_batches_of_any_size():
    rng = np.random.default_rng(0)
    for size in (10, 1000):
        totals = np.zeros(2)
        for _ in range(20000 // size):
            chosen = jnp.asarray(rng.permutation(size) < size // 5)[None]
            x = jnp.asarray(rng.normal(size=(1, size)), jnp.float32)
            parts = _overlap("low", x, chosen, jnp.ones((1, size), bool))
            totals += [float(parts["low_overlap"]), float(parts["low_possible"])]
        assert abs(totals[0] / totals[1]) < 0.06
