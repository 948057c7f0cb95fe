"""The two updates: critics on their shards of every group, the actor on the whole rollout.

Each is a scan over epochs × minibatches (a minibatch is one gradient), and inside it a scan over
microbatches (one forward pass) that adds up gradients. Denominators are counted over the minibatch
before its first microbatch, so the cut into microbatches changes no number.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Int, PRNGKeyArray

from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.ops.logits import log_probs_and_entropy
from asyppo_jax.ops.losses import asyppo_loss, clipped_surrogate, squared_error
from asyppo_jax.ops.masked import masked_sum, sequence_mean_sum, token_sum
from asyppo_jax.optimizer import apply_gradients, make_optimizer, stack_optimizer
from asyppo_jax.sharding import constrain_batch
from asyppo_jax.types import Experience, Params, Rollout

Metrics = dict[str, Array]


class UpdateRows(struct.PyTreeNode):
    """What the updates read of an experience, rows first in every leaf."""

    tokens: Array  # [B, T]
    segments: Array  # [B, T] int32, 1 on prompt and completion, 0 on padding
    old_log_probs: Array  # [B, C]
    advantages: Array  # [B, C]
    returns: Array  # [B, C]
    loss_mask: Array  # [B, C]
    advantage_mask: Array  # [B, C]
    entropy_mask: Array  # [B, C]


def update_rows(experience: Experience) -> UpdateRows:
    """The rows of an experience; old log-probs are those of the rollout."""
    rollout = experience.rollout
    return UpdateRows(
        tokens=rollout.tokens,
        segments=sequence_segments(rollout),
        old_log_probs=rollout.log_probs,
        advantages=experience.advantages,
        returns=experience.returns,
        loss_mask=experience.loss_mask,
        advantage_mask=experience.advantage_mask,
        entropy_mask=experience.entropy_mask,
    )


def sequence_segments(rollout: Rollout) -> Array:
    """1 on the real tokens of prompt and completion, 0 on padding [B, T]."""
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    return mask.astype(jnp.int32)


def completion_log_probs(
    params: Params, rows: UpdateRows, networks: Networks, logits_chunk: int
) -> tuple[Array, Array]:
    """log π(token) and the entropy at every completion position, both [B, C] (nats)."""
    length = rows.loss_mask.shape[1]
    hidden = networks.actor_hidden(params, rows.tokens, rows.segments)
    # The hidden state at t predicts token t + 1.
    before = hidden[:, -length - 1 : -1]
    head = networks.actor_head(params)
    return log_probs_and_entropy(before, head, rows.tokens[:, -length:], chunk=logits_chunk)


def completion_values(params: Params, rows: UpdateRows | Rollout, networks: Networks) -> Array:
    """One critic's V(s_t) [B, C]: what it says before completion token t is chosen."""
    segments = rows.segments if isinstance(rows, UpdateRows) else sequence_segments(rows)
    length = (rows.loss_mask if isinstance(rows, UpdateRows) else rows.completion_mask).shape[1]
    return networks.critic_values(params, rows.tokens, segments)[:, -length - 1 : -1]


def in_microbatches(function: Any, rows: Any, size: int) -> Any:
    """`function` of `size` rows at a time, its outputs (rows first) joined again."""
    batch = jax.tree.leaves(rows)[0].shape[0]
    cut = jax.tree.map(lambda x: x.reshape(batch // size, size, *x.shape[1:]), rows)
    out = jax.lax.map(function, constrain_batch(cut, axis=1))
    return jax.tree.map(lambda x: x.reshape(batch, *x.shape[2:]), out)


def ensemble_values(params: Params, rollout: Rollout, networks: Networks, config: Config) -> Array:
    """V_k(s_t) of every critic on every response: [K, B, C], float32."""

    def values(rows):
        stacked = jax.vmap(completion_values, in_axes=(0, None, None))(params, rows, networks)
        return stacked.swapaxes(0, 1)

    return in_microbatches(values, rollout, config.batching.microbatch_size).swapaxes(0, 1)


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
    num_critics = experience.critic_shards.shape[0]
    batching = config.batching
    rows = update_rows(experience)
    tx = make_optimizer(config.critic_optimizer)
    optimizer = stack_optimizer(tx, joint=config.algorithm.critic_optimizer == "joint")

    def loss(p, own: UpdateRows, count):
        values = completion_values(p, own, networks)
        return masked_sum(squared_error(values, own.returns), own.loss_mask) / count

    def stack_loss(stack, own, counts):
        losses = jax.vmap(loss)(stack, own, counts)
        return jnp.sum(losses), losses

    def minibatch(carry, index):  # index [n, K, m]: n microbatches of m rows for each critic
        stack, opt = carry
        counts = jnp.sum(rows.loss_mask[index], axis=(0, 2, 3))
        counts = jnp.maximum(counts, 1).astype(jnp.float32)

        def microbatch(total, one):
            own = constrain_batch(jax.tree.map(lambda x: x[one], rows), axis=1)
            grads, losses = jax.grad(stack_loss, has_aux=True)(stack, own, counts)
            return jax.tree.map(jnp.add, total, (grads, losses)), None

        zero = (jax.tree.map(jnp.zeros_like, stack), jnp.zeros(num_critics))
        (grads, losses), _ = jax.lax.scan(microbatch, zero, index)
        norms = jax.vmap(optax.tree.norm)(grads)
        stack, opt = apply_gradients(optimizer, grads, opt, stack)
        return (stack, opt), {"critic/loss": jnp.mean(losses), "critic/grad_norm": jnp.mean(norms)}

    index = critic_minibatches(
        key,
        experience.critic_shards,
        epochs=config.algorithm.critic_epochs,
        minibatch=batching.critic_minibatch_size // num_critics,
        microbatch=batching.microbatch_size // num_critics,
    )
    (params, opt_state), metrics = jax.lax.scan(minibatch, (params, opt_state), index)
    return params, opt_state, jax.tree.map(jnp.mean, metrics)


def critic_minibatches(
    key: PRNGKeyArray, shards: Array, *, epochs: int, minibatch: int, microbatch: int
) -> Int[Array, "E n K m"]:
    """Row numbers [epochs · minibatches, microbatches, K, rows]; critic k's are of its shard."""
    num_critics, batch = shards.shape
    size = batch // num_critics
    own = jax.vmap(lambda shard: jnp.nonzero(shard, size=size)[0])(shards)

    def shuffled(k):
        return jax.vmap(jax.random.permutation)(jax.random.split(k, num_critics), own)

    order = jax.vmap(shuffled)(jax.random.split(key, epochs))  # [epochs, K, size]
    cut = order.reshape(epochs, num_critics, size // minibatch, minibatch // microbatch, microbatch)
    return cut.transpose(0, 2, 3, 1, 4).reshape(
        -1, minibatch // microbatch, num_critics, microbatch
    )


def actor_minibatches(
    key: PRNGKeyArray, batch: int, *, epochs: int, minibatch: int, microbatch: int
) -> Int[Array, "E n m"]:
    """Row numbers [epochs · minibatches, microbatches, rows], shuffled anew each epoch."""
    order = jax.vmap(lambda k: jax.random.permutation(k, batch))(jax.random.split(key, epochs))
    return order.reshape(-1, minibatch // microbatch, microbatch)


def update_actor(
    params: Params,
    opt_state: Any,
    experience: Experience,
    key: PRNGKeyArray,
    networks: Networks,
    config: Config,
) -> tuple[Params, Any, Metrics]:
    """Maximises E (1/|o|) Σ_t [ I^A·min(ρA, clip(ρ)A) + β·I^H·H ] (arXiv 2510.01656)."""
    batching, algorithm = config.batching, config.algorithm
    rows = update_rows(experience)
    optimizer = make_optimizer(config.actor_optimizer)
    if algorithm.old_log_probs == "recompute":

        def recompute(some):
            return completion_log_probs(params, some, networks, batching.logits_chunk)[0]

        old = in_microbatches(recompute, rows, batching.microbatch_size)
        rows = rows.replace(old_log_probs=old)

    def minibatch(carry, index):  # index [n, m]: n microbatches of m rows
        actor, opt = carry
        count = jnp.sum(jnp.any(rows.loss_mask[index], axis=-1))
        count = jnp.maximum(count, 1).astype(jnp.float32)

        def microbatch(total, one):
            some = constrain_batch(jax.tree.map(lambda x: x[one], rows))
            grads, sums = jax.grad(actor_loss, has_aux=True)(actor, some, count, networks, config)
            return jax.tree.map(jnp.add, total, (grads, sums)), None

        zero = (jax.tree.map(jnp.zeros_like, actor), jax.tree.map(jnp.zeros_like, _NO_SUMS))
        (grads, sums), _ = jax.lax.scan(microbatch, zero, index)
        metrics = _actor_metrics(sums) | {"actor/grad_norm": optax.tree.norm(grads)}
        actor, opt = apply_gradients(optimizer, grads, opt, actor)
        return (actor, opt), metrics

    index = actor_minibatches(
        key,
        rows.tokens.shape[0],
        epochs=algorithm.actor_epochs,
        minibatch=batching.actor_minibatch_size,
        microbatch=batching.microbatch_size,
    )
    (params, opt_state), metrics = jax.lax.scan(minibatch, (params, opt_state), index)
    # Before the first update sampler and learner hold the same weights: any gap is theirs.
    gap = {
        "rollout/log_prob_gap": metrics.pop("gap")[0],
        "rollout/log_prob_gap_max": metrics.pop("gap_max")[0],
    }
    return params, opt_state, jax.tree.map(jnp.mean, metrics) | gap


def actor_loss(
    params: Params, rows: UpdateRows, count: Array, networks: Networks, config: Config
) -> tuple[Array, Metrics]:
    """A microbatch's share of the loss, of a minibatch of `count` sequences, and metric sums."""
    algorithm, mask = config.algorithm, rows.loss_mask
    log_probs, entropy = completion_log_probs(params, rows, networks, config.batching.logits_chunk)
    surrogate, ratio = clipped_surrogate(
        log_probs,
        rows.old_log_probs,
        rows.advantages,
        clip_eps_low=algorithm.clip_eps_low,
        clip_eps_high=algorithm.clip_eps_high,
    )
    per_token = asyppo_loss(
        surrogate,
        entropy,
        rows.advantage_mask,
        rows.entropy_mask,
        entropy_coef=algorithm.entropy_coef,
    )
    total, _ = sequence_mean_sum(per_token, mask)
    loss = total / count
    log_ratio = log_probs - rows.old_log_probs
    clipped = (ratio < 1 - algorithm.clip_eps_low) | (ratio > 1 + algorithm.clip_eps_high)
    tokens = token_sum(entropy, mask)[1]
    gap = jnp.abs(log_ratio)
    sums = {
        "loss": loss,
        "tokens": tokens,
        "entropy": masked_sum(entropy, mask),
        "ratio": masked_sum(ratio, mask),
        "clipped": masked_sum(clipped.astype(jnp.float32), mask),
        # The low-variance estimate of KL(π_old || π): (ρ − 1) − log ρ.
        "kl": masked_sum(ratio - 1 - log_ratio, mask),
        "gap": masked_sum(gap, mask),
        "gap_max": jnp.max(jnp.where(mask, gap, 0.0)),
    }
    return loss, jax.lax.stop_gradient(sums)


_NO_SUMS = {
    name: 0.0 for name in ("loss", "tokens", "entropy", "ratio", "clipped", "kl", "gap", "gap_max")
}


def _actor_metrics(sums: Metrics) -> Metrics:
    tokens = jnp.maximum(sums["tokens"], 1)
    return {
        "actor/loss": sums["loss"],
        "actor/entropy": sums["entropy"] / tokens,
        "actor/ratio_mean": sums["ratio"] / tokens,
        "actor/clip_fraction": sums["clipped"] / tokens,
        "actor/kl": sums["kl"] / tokens,
        "gap": sums["gap"] / tokens,
        "gap_max": sums["gap_max"],
    }
