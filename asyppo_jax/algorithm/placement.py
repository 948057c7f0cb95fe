"""How one network's parameters and gradients are sharded while it is used or updated.

`config.mesh.zero_stage` names what is replicated over `data` (ZeRO, arXiv 1910.02054).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks, actor_shapes, critic_shapes, in_compute_dtype
from asyppo_jax.runtime.sharding import gather_params, shard_params
from asyppo_jax.types import Params


class Placement(NamedTuple):
    """A network's boxed shapes, its compute dtype and the stage of ZeRO."""

    shapes: Params
    dtype: jnp.dtype
    zero_stage: int

    @property
    def accumulates_locally(self) -> bool:
        """Whether each data shard sums the gradients of its own rows until the minibatch ends."""
        return self.zero_stage == 1

    def for_compute(self, params: Params) -> Params:
        """The parameters in the compute dtype; all-gathered over `data` unless the stage is 3."""
        params = in_compute_dtype(params, self.dtype)
        return params if self.zero_stage == 3 else gather_params(params, self.shapes)

    def for_accumulation(self, grads: Params) -> Params:
        """One microbatch's gradients, in float32 so that small terms are not lost in the sum."""
        if self.zero_stage < 3:
            grads = shard_params(grads, self.shapes)
        return jax.tree.map(lambda grad: grad.astype(jnp.float32), grads)

    def for_optimizer(self, grads: Params) -> Params:
        """The summed gradients, sharded as the parameters and the optimizer state are."""
        return shard_params(grads, self.shapes) if self.accumulates_locally else grads


def actor_placement(networks: Networks, config: Config) -> Placement:
    """The placement of the actor."""
    actor = networks.actor
    return Placement(actor_shapes(actor), actor.dtype, config.mesh.zero_stage)


def critic_placement(networks: Networks, config: Config, num_critics: int) -> Placement:
    """The placement of the stacked critics."""
    critic = networks.critic
    assert critic is not None, "this run has no critics"
    return Placement(critic_shapes(critic, num_critics), critic.dtype, config.mesh.zero_stage)
