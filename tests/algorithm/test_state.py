"""The state before the first step."""

import jax
import numpy as np

from asyppo_jax.algorithm.state import create_train_state, state_shapes
from tests.tiny import make_config, make_networks, make_state


def test_the_shapes_are_those_of_the_state():
    config, networks = make_config(), make_networks()
    state, shapes = make_state(config, networks), state_shapes(config, networks)
    assert jax.tree.structure(state) == jax.tree.structure(shapes)
    for x, shape in zip(jax.tree.leaves(state), jax.tree.leaves(shapes), strict=True):
        assert x.shape == shape.shape and x.dtype == shape.dtype


def test_no_two_critics_begin_equal():
    """Equal critics would have no disagreement to rank."""
    config, networks = make_config(), make_networks()
    kernel = np.asarray(make_state(config, networks).critic_params["value_kernel"])
    assert (kernel[0] != kernel[1]).all()


def test_without_critics_their_part_of_the_state_is_empty():
    config, networks = make_config(0), make_networks(0)
    shapes = jax.eval_shape(lambda: create_train_state(config, networks))
    assert shapes.critic_params == {} and shapes.critic_opt_state == ()
