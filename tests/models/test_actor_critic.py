"""The stack of critics: names of its axes, K different heads, one critic = a slice of the stack."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from asyppo_jax.models.actor_critic import init_critics, init_value_kernel
from tests.tiny import QWEN2, VOCABULARY, make_actor_params, make_networks


def test_the_stack_names_its_first_axis_critic_in_every_leaf():
    networks = make_networks()
    critic = networks.critic
    assert critic is not None
    stack = jax.eval_shape(lambda: init_critics(critic, jax.random.key(0), 3))
    boxes = jax.tree.leaves(stack, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    assert boxes
    for box in boxes:
        assert box.names[0] == "critic"
        assert len(box.names) == box.value.ndim
        assert box.value.shape[0] == 3


def test_vmapping_the_plain_init_would_leave_the_new_axis_without_a_name():
    """The trap: `jax.vmap(init)` stacks the values, not the names, and shifts every sharding."""
    networks = make_networks()
    critic = networks.critic
    assert critic is not None
    example = (
        jnp.zeros((1, 1), jnp.int32),
        jnp.zeros((1, 1), jnp.int32),
        jnp.ones((1, 1), jnp.int32),
    )
    naive = jax.vmap(lambda k: critic.init(k, *example)["params"])(
        jax.random.split(jax.random.key(0), 3)
    )
    boxes = jax.tree.leaves(naive, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    assert any(len(box.names) != box.value.ndim for box in boxes)


def test_a_critic_of_the_stack_is_the_critic_alone():
    networks = make_networks()
    critic = networks.critic
    assert critic is not None
    stack = jax.jit(lambda: meta.unbox(init_critics(critic, jax.random.key(0), 2)))()
    tokens = jax.random.randint(jax.random.key(1), (3, 6), 0, VOCABULARY)
    mask = jnp.ones((3, 6), bool)
    values_of = jax.jit(networks.critic_values)
    together = jax.jit(jax.vmap(networks.critic_values, (0, None, None)))(stack, tokens, mask)
    for k in range(2):
        alone = values_of(jax.tree.map(lambda x, k=k: x[k], stack), tokens, mask)
        np.testing.assert_allclose(together[k], alone, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-4


def test_value_heads_are_small_and_differ_by_key():
    first, second = (init_value_kernel(jax.random.key(k), (4096,)) for k in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(first), 0.1, rtol=0.05)
    assert np.abs(first - second).max() > 0


def test_an_untied_actor_has_a_head_of_its_own():
    networks = make_networks(0, QWEN2)
    params = make_actor_params(networks)
    assert networks.actor_head(params) is params["lm_head"]
    tied = make_networks(0)
    params = make_actor_params(tied)
    np.testing.assert_array_equal(tied.actor_head(params), params["decoder"]["embedding"].T)
