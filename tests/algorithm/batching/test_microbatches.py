"""How a rollout is cut up, and loops that meet the rows in use and no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.batching.microbatches import (
    accumulate,
    actor_minibatches,
    critic_minibatches,
    in_microbatches,
)

KEY = jax.random.key(2)


def test_every_epoch_visits_every_row_once_in_another_order():
    order = actor_minibatches(KEY, 32, epochs=3, minibatch=16)
    assert order.shape == (6, 16)
    epochs = np.asarray(order).reshape(3, 32)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(32))
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize("num_critics", [1, 2, 4])
def test_a_critics_minibatches_hold_its_own_shard_and_nothing_else(num_critics):
    owner = np.random.default_rng(0).permutation(np.arange(32) % num_critics)
    shards = jnp.asarray(owner[None] == np.arange(num_critics)[:, None])
    minibatch = 16 // num_critics
    sizes = {"size": 32 // num_critics, "epochs": 2, "minibatch": minibatch}
    order = np.asarray(critic_minibatches(KEY, shards, **sizes))
    assert order.shape == (4, num_critics, minibatch)
    for k in range(num_critics):
        first_epoch = np.sort(order[:2, k].ravel())
        np.testing.assert_array_equal(first_epoch, np.flatnonzero(owner == k))


def test_shards_that_overlap_give_every_critic_all_rows_in_an_order_of_its_own():
    shards = jnp.ones((2, 16), bool)
    order = np.asarray(critic_minibatches(KEY, shards, size=16, epochs=1, minibatch=8))
    assert order.shape == (2, 2, 8)
    for k in range(2):
        np.testing.assert_array_equal(np.sort(order[:, k].ravel()), np.arange(16))
    assert (order[:, 0] != order[:, 1]).any()


def _sum_and_maximum(rows):
    return (jnp.sum(rows), jnp.ones(())), jnp.max(rows)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("num_rows", [1, 4, 5, 11, 12])
def test_sums_and_maxima_are_those_of_the_rows_in_use(num_rows, local):
    rows = jnp.where(jnp.arange(12.0) < num_rows, 1 + jnp.arange(12.0), 0.0)
    run = jax.jit(lambda n: accumulate(_sum_and_maximum, (), rows, 4, n, local=local))
    (total, trips), maximum = run(num_rows)
    assert total == num_rows * (num_rows + 1) / 2
    assert maximum == num_rows
    assert trips == -(-num_rows // 4)


def test_rows_behind_an_axis_of_critics_are_cut_along_their_own_axis():
    rows = jnp.arange(24.0).reshape(2, 12)

    def by_critic(some):
        assert some.shape == (2, 4)
        return jnp.sum(some, axis=1), ()

    totals, _ = accumulate(by_critic, (), rows, 4, 12, axis=1)
    np.testing.assert_array_equal(totals, jnp.sum(rows, axis=1))


def test_rows_cut_into_microbatches_come_back_in_order():
    rows = jnp.arange(12.0)
    np.testing.assert_array_equal(in_microbatches(lambda x: x * 2, rows, 4, 12), rows * 2)
    few = jax.jit(lambda n: in_microbatches(lambda x: x * 2, rows, 4, n))(5)
    np.testing.assert_array_equal(few, jnp.where(jnp.arange(12) < 8, rows * 2, 0))
