"""One optimizer per critic: what one critic's gradient does must not depend on another's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.optimizer import (
    apply_gradients,
    learning_rate_schedule,
    make_optimizer,
    stack_optimizer,
)
from asyppo_jax.config import OptimizerConfig

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


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_learning_rate_falls_to_its_final_fraction_and_stays(kind, warmup):
    config = OptimizerConfig(
        learning_rate=0.4, warmup_steps=warmup, schedule=kind, decay_steps=10, final_fraction=0.25
    )
    schedule: Any = learning_rate_schedule(config)
    steps = np.arange(30)
    progress = np.clip((steps - warmup) / 10, 0, 1)
    share = 1 - progress if kind == "linear" else (1 + np.cos(np.pi * progress)) / 2
    expected = 0.4 * (0.25 + 0.75 * share)
    expected[:warmup] = 0.4 * steps[:warmup] / max(warmup, 1)
    np.testing.assert_allclose(jax.vmap(schedule)(jnp.array(steps)), expected, rtol=1e-6)


def test_a_critic_stack_follows_the_schedule():
    """Adam's first updates of a constant gradient are the learning rate, whatever the gradient."""
    config = OptimizerConfig(
        learning_rate=1.0, schedule="linear", decay_steps=4, max_grad_norm=1e9, eps=1e-12
    )
    optimizer = stack_optimizer(make_optimizer(config), joint=False)
    params, grads = jnp.zeros((2, 3)), jnp.array([[1.0] * 3, [100.0] * 3])
    state = optimizer.init(params)
    for rate in (1.0, 0.75, 0.5, 0.25, 0.0, 0.0):
        moved, state = apply_gradients(optimizer, grads, state, params)
        np.testing.assert_allclose(params - moved, rate, rtol=1e-4, atol=1e-7)
        params = moved


def test_every_schedule_has_the_same_optimizer_state():
    """A checkpoint of an earlier version, which had no schedules, is read with any of them."""
    params = {"w": jnp.zeros((2, 4))}
    states = [
        jax.eval_shape(make_optimizer(config).init, params)
        for config in (
            OptimizerConfig(),
            OptimizerConfig(warmup_steps=3),
            OptimizerConfig(schedule="linear", decay_steps=5),
            OptimizerConfig(schedule="cosine", decay_steps=5, warmup_steps=3),
        )
    ]
    assert all(state == states[0] for state in states)


def _moments(dtype, steps=0):
    params = {"w": jax.random.normal(jax.random.key(0), (2, 64))}
    tx = make_optimizer(OptimizerConfig(learning_rate=1e-2, moment_dtype=dtype))
    optimizer = stack_optimizer(tx, joint=False)
    state = optimizer.init(params)
    update = jax.jit(lambda g, s, p: apply_gradients(optimizer, g, s, p))
    for step in range(steps):
        noise = jax.random.normal(jax.random.key(step), (2, 64))
        grads = {"w": params["w"] + noise}
        params, state = update(grads, state, params)
    return params, state


@pytest.mark.parametrize("steps", [0, 1])
def test_a_bfloat16_first_moment_saves_a_quarter_of_adams_bytes(steps):
    """Before the first update and after it: an update that gave back float32 would retrace."""
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        _, state = _moments(dtype, steps)
        moments = [x for x in jax.tree.leaves(state) if x.ndim == 2]
        assert sorted(str(x.dtype) for x in moments) == sorted([dtype, "float32"])
        sizes[dtype] = sum(x.nbytes for x in moments)
    assert sizes["bfloat16"] == 0.75 * sizes["float32"]


def test_a_bfloat16_first_moment_hardly_changes_the_way():
    start, _ = _moments("float32")
    exact, _ = _moments("float32", 10)
    rounded, _ = _moments("bfloat16", 10)
    moved = jnp.linalg.norm(exact["w"] - start["w"])
    assert 0 < jnp.linalg.norm(rounded["w"] - exact["w"]) < 0.01 * moved
