"""Where parameters and gradients are placed while an update runs (`config.mesh`)."""

import jax
import jax.numpy as jnp

from asyppo_jax.config import MeshConfig
from asyppo_jax.models.actor_critic import (
    in_compute_dtype,
)
from asyppo_jax.runtime.sharding import gather_params, spread_params
from asyppo_jax.types import Params


def to_compute(params: Params, shapes: Params, dtype: jnp.dtype, mesh: MeshConfig) -> Params:
    """The parameters as the products of all microbatches read them; `shapes` are boxed ones."""
    params = in_compute_dtype(params, dtype)
    return gather_params(params, shapes) if mesh.gather == "minibatch" else params


def to_add(grads: Params, shapes: Params, mesh: MeshConfig) -> Params:
    """Gradients of `to_compute`'s parameters as microbatches add up, in float32, in which small
    terms are not lost.

    Each device adds up its own part; or, where they meet once a minibatch, those of its own rows.
    """
    if mesh.gather == "minibatch":
        grads = spread_params(grads, shapes)
    return jax.tree.map(lambda x: x.astype(jnp.float32), grads)


def to_apply(grads: Params, shapes: Params, mesh: MeshConfig) -> Params:
    """The sums of `to_add`'s gradients as the optimiser takes them: where the parameters rest."""
    return spread_params(grads, shapes) if mesh.reduce == "minibatch" else grads
