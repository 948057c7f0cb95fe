"""The critics' update: each critic fits its share of every group, with its own optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.microbatches import critic_minibatches
from asyppo_jax.algorithm.batching.rows import UpdateRows, as_critics_read, update_rows
from asyppo_jax.algorithm.forward import completion_outputs, per_critic, value_anchor
from asyppo_jax.algorithm.minibatch_updates import Minibatch, update_in_minibatches
from asyppo_jax.algorithm.optimizer import critic_optimizer
from asyppo_jax.algorithm.placement import critic_placement
from asyppo_jax.config import Config, ValueConfig
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.ops.losses import squared_error
from asyppo_jax.ops.masked import masked_sum
from asyppo_jax.ops.value_heads import ValueHead
from asyppo_jax.ops.value_losses import (
    binary_cross_entropy,
    clipped_squared_error,
    cross_entropy,
    hl_gauss,
    noise_weights,
    sparse_positions,
    two_hot,
)
from asyppo_jax.types import Experience, Metrics, Params


def update_critics(
    params: Params,
    opt_state: Any,
    experience: Experience,
    key: PRNGKeyArray,
    networks: Networks,
    config: Config,
    *,
    dense: Array | bool = True,
) -> tuple[Params, Any, Metrics]:
    """The critics' parameters (stacked), optimizer state and metrics after all minibatch updates.

    They minimise L = Σ_k E_{(s_t, R_t) ~ D_k} (V_k(s_t) − R_t)² (arXiv 2510.01656). D_k is critic
    k's share of the responses (`config.algorithm.critic_data`), and E the mean over its real tokens
    in the minibatch. Options of `config.value` change the loss (`value_loss`) and its tokens
    (`critic_rows`). With `dense` all tokens are fitted, also if the config names positions.
    """
    num_critics, batching = experience.critic_shards.shape[0], config.batching
    sizes = config.critic_sizes
    rows = critic_rows(experience, networks.value_head, config, dense)

    def critic_loss(critic: Params, rows: UpdateRows, num_tokens: Array) -> Array:
        outputs = completion_outputs(critic, rows, networks)
        if rows.anchor is not None:
            outputs += rows.anchor
        per_token = value_loss(outputs, rows, networks.value_head, config.value)
        return masked_sum(per_token, rows.mask) / num_tokens

    def stack_loss(stack: Params, rows: UpdateRows, num_tokens: Array):
        losses = per_critic(critic_loss)(stack, rows, num_tokens)
        return jnp.sum(losses), ({"loss": losses}, {})

    def read_minibatch(index: Array) -> Minibatch:  # index [K, m]: m rows of each critic
        shares = jax.tree.map(lambda x: x[index], rows)
        if config.value.clip_eps:
            old_values = jnp.take_along_axis(experience.values, index[..., None], axis=1)
            shares = shares.replace(old_values=old_values)
        num_tokens = jnp.maximum(jnp.sum(shares.mask, axis=(1, 2)), 1).astype(jnp.float32)
        laid_out, used = jax.vmap(lambda x: lay_out(x, batching, sizes.per_prompt)[:2])(shares)
        num_rows = jnp.max(used) if batching.packing else laid_out.tokens.shape[1]
        return Minibatch(laid_out, num_rows, num_tokens)

    params, opt_state, (sums, _, norms) = update_in_minibatches(
        stack_loss,
        params,
        opt_state,
        critic_minibatches(
            key,
            experience.critic_shards,
            size=sizes.responses,
            epochs=config.algorithm.critic_epochs,
            minibatch=sizes.minibatch,
            block_size=sizes.per_prompt if batching.rows_per_prompt > 1 else 1,
        ),
        read_minibatch,
        optimizer=critic_optimizer(config),
        placement=critic_placement(networks, config, num_critics),
        microbatch_size=batching.rows_of(sizes.microbatch),
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


def critic_rows(
    experience: Experience, head: ValueHead, config: Config, dense: Array | bool
) -> UpdateRows:
    """What the critics fit: all responses, with the mask and the arrays that `config.value` needs.

    `mask` has all real tokens, or the positions of `config.value.positions` unless `dense`.
    """
    rollout, mask, value = experience.rollout, experience.loss_mask, config.value
    group = config.sampling.group_size
    seen = experience.replace(rollout=as_critics_read(rollout, value))
    rows = update_rows(seen, config.algorithm.loss_aggregation)
    if value.positions:
        rows = rows.replace(mask=mask & (dense | sparse_positions(mask, value.positions)))
    if value.noise_weights:
        weights = noise_weights(rollout.rewards, rollout.reward_valid, group)
        rows = rows.replace(value_weights=jnp.broadcast_to(weights[:, None], mask.shape))
    anchor = value_anchor(rollout, group, value.anchor)
    if anchor is not None:
        outputs = head.inverse(anchor)
        rows = rows.replace(anchor=jnp.broadcast_to(outputs[:, None], mask.shape))
    return rows


def value_loss(outputs: Array, rows: UpdateRows, head: ValueHead, config: ValueConfig) -> Array:
    """The loss of a critic's outputs z, with the anchor's, per token [R, n].

    The options are in `ops.value_losses`.
    """
    if config.loss == "bce":
        loss = binary_cross_entropy(outputs, rows.returns)
    elif config.loss == "two_hot":
        loss = cross_entropy(outputs, two_hot(rows.returns, head))
    elif config.loss == "hl_gauss":
        loss = cross_entropy(outputs, hl_gauss(rows.returns, head, std=config.hl_gauss_std))
    else:
        values = head.value(outputs)
        if rows.old_values is not None:
            loss = clipped_squared_error(
                values, rows.old_values, rows.returns, clip_eps=config.clip_eps
            )
        else:
            loss = squared_error(values, rows.returns)
    return loss if rows.value_weights is None else rows.value_weights * loss
