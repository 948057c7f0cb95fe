"""The two updates: critics on their shards of every group, the actor on the whole rollout.

Each is a scan over epochs × minibatches (a minibatch is one gradient), and inside it a loop over
microbatches (one forward pass) that adds up gradients. Denominators are counted over the minibatch
before its first microbatch, and a token brings its own 1/|o|, so neither the cut into microbatches
nor the layout of sequences in rows (`layout`) changes a number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from asyppo_jax.algorithm.batching.layout import before_completions, lay_out
from asyppo_jax.algorithm.batching.microbatches import (
    accumulate,
    actor_minibatches,
    critic_minibatches,
    in_microbatches,
)
from asyppo_jax.algorithm.batching.packing import Rows
from asyppo_jax.algorithm.optimizer import apply_gradients, make_optimizer, stack_optimizer
from asyppo_jax.config import BatchingConfig, Config, MeshConfig
from asyppo_jax.models.actor_critic import (
    Networks,
    actor_shapes,
    critic_shapes,
    in_compute_dtype,
)
from asyppo_jax.ops.logits import log_probs_and_entropy
from asyppo_jax.ops.losses import asyppo_loss, clipped_surrogate, squared_error
from asyppo_jax.ops.masked import masked_sum, sequence_weights, token_sum
from asyppo_jax.runtime.sharding import gather_params, spread_params
from asyppo_jax.types import Experience, Params, Rollout

Metrics = dict[str, Array]


class UpdateRows(Rows):
    """What the updates read of an experience; `mask` is its loss mask."""

    old_log_probs: Array  # [R, n]
    advantages: Array  # [R, n]
    returns: Array  # [R, n]
    weights: Array  # [R, n], 1/|o| of the token's sequence
    advantage_mask: Array  # [R, n]
    entropy_mask: Array  # [R, n]


def update_rows(experience: Experience) -> UpdateRows:
    """The rows of an experience; old log-probs are those of the rollout."""
    rollout, mask = experience.rollout, experience.loss_mask
    return UpdateRows(
        tokens=rollout.tokens,
        segments=sequence_segments(rollout),
        mask=mask,
        old_log_probs=rollout.log_probs,
        advantages=experience.advantages,
        returns=experience.returns,
        weights=sequence_weights(mask),
        advantage_mask=experience.advantage_mask,
        entropy_mask=experience.entropy_mask,
    )


def sequence_segments(rollout: Rollout) -> Array:
    """1 on the real tokens of prompt and completion, 0 on padding [B, T]."""
    mask = jnp.concatenate([rollout.prompt_mask, rollout.completion_mask], axis=1)
    return mask.astype(jnp.int32)


def completion_log_probs(
    params: Params, rows: Rows, networks: Networks, batching: BatchingConfig
) -> tuple[Array, Array]:
    """log π(token) and the entropy of each row's last n tokens, both [R, n] (nats)."""
    length = rows.mask.shape[1]
    hidden = networks.actor_hidden(params, rows.tokens, rows.segments)
    return log_probs_and_entropy(
        before_completions(hidden, rows),  # the hidden state at t predicts token t + 1
        networks.actor_head(params),
        rows.tokens[:, -length:],
        chunk=batching.logits_chunk * batching.rows_per_prompt,  # of as many fewer rows
        needed=rows.mask if batching.packing else None,  # packed, prompts lie among completions
    )


def completion_values(params: Params, rows: Rows, networks: Networks) -> Array:
    """One critic's V(s_t) [R, n]: what it says before each of a row's last n tokens is chosen."""
    return before_completions(networks.critic_values(params, rows.tokens, rows.segments), rows)


def of_each_sequence(
    function: Callable[[Rows], Array], rows: Rows, batching: BatchingConfig, group_size: int
) -> Array:
    """`function` (rows to [R, n, ...]) of all sequences, a microbatch at a time: [B, C, ...]."""
    laid, num_rows, back = lay_out(rows, batching, group_size)
    size = batching.rows_of(batching.microbatch_size)
    return back(in_microbatches(function, laid, size, num_rows))


def ensemble_values(params: Params, rollout: Rollout, networks: Networks, config: Config) -> Array:
    """V_k(s_t) of every critic on every response: [K, B, C], float32."""
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    critic, num_critics = networks.critic, jax.tree.leaves(params)[0].shape[0]
    assert critic is not None, "there are no critics to ask"
    stack = to_compute(params, critic_shapes(critic, num_critics), critic.dtype, config.mesh)

    def values(some):
        each = of_each_critic(lambda p: completion_values(p, some, networks))
        return jnp.moveaxis(each(stack), 0, -1)

    found = of_each_sequence(values, rows, config.batching, config.sampling.group_size)
    return jnp.moveaxis(found, -1, 0)


def of_each_critic(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function` of every critic's parts of its arguments, the critics first in both."""

    def run(*arguments: Any) -> Array:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(function)(*arguments)
        # A single one needs no batched products, which are the slower ones.
        return function(*jax.tree.map(lambda x: x[0], arguments))[None]

    return run


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
