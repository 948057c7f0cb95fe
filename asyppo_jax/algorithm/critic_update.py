"""The critics' update: each critic fits its share of every group."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.microbatches import (
    accumulate,
    critic_minibatches,
)
from asyppo_jax.algorithm.batching.rows import UpdateRows, update_rows
from asyppo_jax.algorithm.forward import completion_values, of_each_critic
from asyppo_jax.algorithm.optimizer import apply_gradients, make_optimizer, stack_optimizer
from asyppo_jax.algorithm.placement import to_add, to_apply, to_compute
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import (
    Networks,
    critic_shapes,
)
from asyppo_jax.ops.losses import squared_error
from asyppo_jax.ops.masked import masked_sum
from asyppo_jax.types import Experience, Metrics, Params


def update_critics(
    params: Params,
    opt_state: Any,
    experience: Experience,
    key: PRNGKeyArray,
    networks: Networks,
    config: Config,
) -> tuple[Params, Any, Metrics]:
    """L = Σ_k E_{(s_t, R_t) ~ D_k} (V_k(s_t) − R_t)², each critic with its own optimiser.

    D_k is critic k's share of the responses, and E the mean over its real tokens.
    """
    num_critics, critic = experience.critic_shards.shape[0], networks.critic
    assert critic is not None, "there are no critics to update"
    batching, share = config.batching, config.sampling.group_size // num_critics
    rows = update_rows(experience)
    tx = make_optimizer(config.critic_optimizer)
    optimizer = stack_optimizer(tx, joint=config.algorithm.critic_optimizer == "joint")
    shapes = critic_shapes(critic, num_critics)

    def loss(p, own: UpdateRows, count):
        values = completion_values(p, own, networks)
        return masked_sum(squared_error(values, own.returns), own.mask) / count

    def stack_loss(stack, own, counts):
        losses = of_each_critic(loss)(stack, own, counts)
        return jnp.sum(losses), losses

    def minibatch(carry, index):  # index [K, m]: m rows for each critic
        stack, opt = carry
        own = jax.tree.map(lambda x: x[index], rows)
        counts = jnp.maximum(jnp.sum(own.mask, axis=(1, 2)), 1).astype(jnp.float32)
        own, used = jax.vmap(lambda few: lay_out(few, batching, share)[:2])(own)
        num_rows = jnp.max(used) if batching.packing else own.tokens.shape[1]
        whole = to_compute(stack, shapes, critic.dtype, config.mesh), counts

        def microbatch(stack, counts, some):
            grads, losses = jax.grad(stack_loss, has_aux=True)(stack, some, counts)
            return (to_add(grads, shapes, config.mesh), losses), ()

        size = batching.rows_of(batching.critic_microbatch(num_critics))
        apart = config.mesh.reduce == "minibatch"
        sums, _ = accumulate(microbatch, whole, own, size, num_rows, axis=1, apart=apart)
        grads, losses = to_apply(sums[0], shapes, config.mesh), sums[1]
        norms = jax.vmap(optax.tree.norm)(grads)
        stack, opt = apply_gradients(optimizer, grads, opt, stack)
        return (stack, opt), {"critic/loss": jnp.mean(losses), "critic/grad_norm": jnp.mean(norms)}

    index = critic_minibatches(
        key,
        experience.critic_shards,
        epochs=config.algorithm.critic_epochs,
        minibatch=batching.critic_minibatch_size // num_critics,
        together=share if batching.rows_per_prompt > 1 else 1,
    )
    (params, opt_state), metrics = jax.lax.scan(minibatch, (params, opt_state), index)
    return params, opt_state, jax.tree.map(jnp.mean, metrics)
