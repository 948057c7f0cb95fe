"""One optimiser per critic: what one critic's gradient does must not depend on another's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.config import OptimizerConfig
from asyppo_jax.optimizer import (
    apply_gradients,
    learning_rate_schedule,
    make_optimizer,
    stack_optimizer,
)

# Adam divides a constant scale away, and with it what the clip did; a large eps lets it show.
CONFIG = OptimizerConfig(learning_rate=1.0, eps=1.0, max_grad_norm=1.0)


def _updates(norms, *, joint):
    params = {"w": jnp.zeros((2, 4))}
    grads = {"w": jnp.ones((2, 4)) * jnp.array(norms)[:, None] / 2.0}
    optimizer = stack_optimizer(make_optimizer(CONFIG), joint=joint)
    moved, _ = apply_gradients(optimizer, grads, optimizer.init(params), params)
    return np.linalg.norm(moved["w"], axis=1)


def test_a_large_gradient_of_one_critic_does_not_shrink_the_update_of_another():
    """The trap: one clip over the stack turns gradient norms (1, 1000) into (0.001, 1.0)."""
    alone, beside_large = _updates((1.0, 1.0), joint=False), _updates((1.0, 1000.0), joint=False)
    np.testing.assert_allclose(alone[0], beside_large[0], rtol=1e-6)
    coupled = _updates((1.0, 1000.0), joint=True)
    assert coupled[0] < 0.01 * beside_large[0]


def test_each_critic_moves_as_if_it_were_alone():
    tx = make_optimizer(CONFIG)
    params = jax.random.normal(jax.random.key(0), (3, 5))
    grads = jax.random.normal(jax.random.key(1), (3, 5)) * jnp.array([[0.1], [1.0], [50.0]])
    optimizer = stack_optimizer(tx, joint=False)
    together, state = params, optimizer.init(params)
    for _ in range(3):
        together, state = apply_gradients(optimizer, grads, state, together)
    for k in range(3):
        alone, own = params[k], tx.init(params[k])
        for _ in range(3):
            alone, own = apply_gradients(tx, grads[k], own, alone)
        np.testing.assert_allclose(together[k], alone, rtol=1e-6)


def test_the_learning_rate_warms_up_linearly_and_stays():
    schedule: Any = learning_rate_schedule(OptimizerConfig(learning_rate=0.4, warmup_steps=4))
    np.testing.assert_allclose(
        jax.vmap(schedule)(jnp.array([0, 1, 4, 100])), [0, 0.1, 0.4, 0.4], rtol=1e-6
    )
    constant = learning_rate_schedule(OptimizerConfig(learning_rate=0.4))
    assert constant(0) == constant(100) == 0.4
