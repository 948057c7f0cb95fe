"""The two updates: critics on their shards of every group, the actor on the whole rollout.

Each is a scan over epochs × minibatches (a minibatch is one gradient), and inside it a loop over
microbatches (one forward pass) that adds up gradients. Denominators are counted over the minibatch
before its first microbatch, and a token brings its own 1/|o|, so neither the cut into microbatches
nor the layout of sequences in rows (`layout`) changes a number.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.microbatches import (
    accumulate,
    actor_minibatches,
)
from asyppo_jax.algorithm.batching.rows import UpdateRows, update_rows
from asyppo_jax.algorithm.forward import completion_log_probs, of_each_sequence
from asyppo_jax.algorithm.optimizer import apply_gradients, make_optimizer
from asyppo_jax.algorithm.placement import to_add, to_apply, to_compute
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import (
    Networks,
    actor_shapes,
)
from asyppo_jax.ops.losses import asyppo_loss, clipped_surrogate
from asyppo_jax.ops.masked import masked_sum, token_sum
from asyppo_jax.types import Experience, Metrics, Params


def update_actor(
    params: Params,
    opt_state: Any,
    experience: Experience,
    key: PRNGKeyArray,
    networks: Networks,
    config: Config,
) -> tuple[Params, Any, Metrics]:
    """Maximises E (1/|o|) Σ_t [ I^A·min(ρA, clip(ρ)A) + β·I^H·H ] (arXiv 2510.01656)."""
    batching, algorithm, group = config.batching, config.algorithm, config.sampling.group_size
    rows = update_rows(experience)
    optimizer, shapes = make_optimizer(config.actor_optimizer), actor_shapes(networks.actor)
    if algorithm.old_log_probs == "recompute":
        frozen = to_compute(params, shapes, networks.actor.dtype, config.mesh)

        def recompute(some):
            return completion_log_probs(frozen, some, networks, batching)[0]

        rows = rows.replace(old_log_probs=of_each_sequence(recompute, rows, batching, group))

    def minibatch(carry, index):  # index [m]
        actor, opt = carry
        some = jax.tree.map(lambda x: x[index], rows)
        count = jnp.sum(jnp.any(some.mask, axis=-1))
        count = jnp.maximum(count, 1).astype(jnp.float32)
        some, num_rows, _ = lay_out(some, batching, group)
        whole = to_compute(actor, shapes, networks.actor.dtype, config.mesh), count

        def microbatch(actor, count, few):
            grads, (sums, peaks) = jax.grad(actor_loss, has_aux=True)(
                actor, few, count, networks, config
            )
            return (to_add(grads, shapes, config.mesh), sums), peaks

        size = batching.rows_of(batching.microbatch_size)
        apart = config.mesh.reduce == "minibatch"
        (grads, sums), peaks = accumulate(microbatch, whole, some, size, num_rows, apart=apart)
        grads = to_apply(grads, shapes, config.mesh)
        metrics = _actor_metrics(sums) | peaks | {"actor/grad_norm": optax.tree.norm(grads)}
        actor, opt = apply_gradients(optimizer, grads, opt, actor)
        return (actor, opt), metrics

    index = actor_minibatches(
        key,
        rows.tokens.shape[0],
        epochs=algorithm.actor_epochs,
        minibatch=batching.actor_minibatch_size,
        together=group if batching.rows_per_prompt > 1 else 1,
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
) -> tuple[Array, tuple[Metrics, Metrics]]:
    """A microbatch's share of the loss of a minibatch of `count` sequences.

    Beside it (sums, peaks) of metrics, which add up and of which the largest counts.
    """
    algorithm, mask = config.algorithm, rows.mask
    log_probs, entropy = completion_log_probs(params, rows, networks, config.batching)
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
    loss = masked_sum(rows.weights * per_token, mask) / count
    log_ratio = log_probs - rows.old_log_probs
    clipped = (ratio < 1 - algorithm.clip_eps_low) | (ratio > 1 + algorithm.clip_eps_high)
    gap = jnp.abs(log_ratio)
    sums = {
        "loss": loss,
        "tokens": token_sum(entropy, mask)[1],
        "entropy": masked_sum(entropy, mask),
        "ratio": masked_sum(ratio, mask),
        "clipped": masked_sum(clipped.astype(jnp.float32), mask),
        # The low-variance estimate of KL(π_old || π): (ρ − 1) − log ρ.
        "kl": masked_sum(ratio - 1 - log_ratio, mask),
        "gap": masked_sum(gap, mask),
    }
    peaks = {"gap_max": jnp.max(jnp.where(mask, gap, 0.0))}
    return loss, jax.lax.stop_gradient((sums, peaks))


def _actor_metrics(sums: Metrics) -> Metrics:
    tokens = jnp.maximum(sums["tokens"], 1)
    return {
        "actor/loss": sums["loss"],
        "actor/entropy": sums["entropy"] / tokens,
        "actor/ratio_mean": sums["ratio"] / tokens,
        "actor/clip_fraction": sums["clipped"] / tokens,
        "actor/kl": sums["kl"] / tokens,
        "gap": sums["gap"] / tokens,
    }
