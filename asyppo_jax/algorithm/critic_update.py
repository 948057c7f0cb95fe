"""The critics' update: each critic fits its share of every group, with its own optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.microbatches import critic_minibatches
from asyppo_jax.algorithm.batching.rows import UpdateRows, update_rows
from asyppo_jax.algorithm.forward import completion_values, per_critic
from asyppo_jax.algorithm.minibatch_updates import Minibatch, update_in_minibatches
from asyppo_jax.algorithm.optimizer import critic_optimizer
from asyppo_jax.algorithm.placement import critic_placement
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks
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
    """The critics' parameters (stacked), optimizer state and metrics after all minibatch updates.

    They minimise L = Σ_k E_{(s_t, R_t) ~ D_k} (V_k(s_t) − R_t)² (arXiv 2510.01656). D_k is critic
    k's share of the responses, and E the mean over its real tokens in the minibatch.
    """
    num_critics, batching = experience.critic_shards.shape[0], config.batching
    share = config.sampling.group_size // num_critics
    rows = update_rows(experience, config.algorithm.loss_aggregation)

    def critic_loss(critic: Params, rows: UpdateRows, num_tokens: Array) -> Array:
        values = completion_values(critic, rows, networks)
        return masked_sum(squared_error(values, rows.returns), rows.mask) / num_tokens

    def stack_loss(stack: Params, rows: UpdateRows, num_tokens: Array):
        losses = per_critic(critic_loss)(stack, rows, num_tokens)
        return jnp.sum(losses), ({"loss": losses}, {})

    def read_minibatch(index: Array) -> Minibatch:  # index [K, m]: m rows of each critic
        shares = jax.tree.map(lambda x: x[index], rows)
        num_tokens = jnp.maximum(jnp.sum(shares.mask, axis=(1, 2)), 1).astype(jnp.float32)
        laid_out, used = jax.vmap(lambda share_rows: lay_out(share_rows, batching, share)[:2])(
            shares
        )
        num_rows = jnp.max(used) if batching.packing else laid_out.tokens.shape[1]
        return Minibatch(laid_out, num_rows, num_tokens)

    params, opt_state, (sums, _, norms) = update_in_minibatches(
        stack_loss,
        params,
        opt_state,
        critic_minibatches(
            key,
            experience.critic_shards,
            epochs=config.algorithm.critic_epochs,
            minibatch=batching.critic_minibatch_size // num_critics,
            block_size=share if batching.rows_per_prompt > 1 else 1,
        ),
        read_minibatch,
        optimizer=critic_optimizer(config),
        placement=critic_placement(networks, config, num_critics),
        microbatch_size=batching.rows_of(batching.critic_microbatch(num_critics)),
        axis=1,
    )
    return (
        params,
        opt_state,
        {
            "critic/loss": jnp.mean(jnp.mean(sums["loss"], axis=1)),
            "critic/grad_norm": jnp.mean(jnp.mean(norms, axis=1)),
        },
    )
