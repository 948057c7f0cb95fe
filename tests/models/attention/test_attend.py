"""Plain attention on small examples."""

import jax.numpy as jnp
import numpy as np

from asyppo_jax.models.attention.attend import attend


def test_equal_scores_average_the_visible_values_and_groups_share_a_key():
    queries, keys = jnp.zeros((1, 1, 4, 8)), jnp.zeros((1, 3, 2, 8))
    values = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 2, 8))
    values = values * jnp.array([1.0, 10.0])[None, None, :, None]
    visible = jnp.array([[[True, False, True]]])
    out = attend(queries, keys, values, visible)
    np.testing.assert_allclose(out[0, 0, :, 0], [1.0, 1.0, 10.0, 10.0])


def test_a_query_without_visible_keys_gives_no_nan():
    x = jnp.ones((1, 1, 2, 8))
    assert jnp.isfinite(attend(x, x, x, jnp.zeros((1, 1, 1), bool))).all()
