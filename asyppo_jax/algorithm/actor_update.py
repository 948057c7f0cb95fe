"""The actor's update: by default the masked clipped surrogate and the masked entropy bonus."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.microbatches import actor_minibatches
from asyppo_jax.algorithm.batching.rows import UpdateRows, update_rows
from asyppo_jax.algorithm.forward import completion_log_probs, frozen_log_probs
from asyppo_jax.algorithm.mask_metrics import mask_metrics, mask_sums
from asyppo_jax.algorithm.minibatch_updates import Minibatch, update_in_minibatches
from asyppo_jax.algorithm.optimizer import make_optimizer
from asyppo_jax.algorithm.placement import actor_placement
from asyppo_jax.algorithm.policy_losses import PolicyLoss
from asyppo_jax.config import AlgorithmConfig, Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.ops.aggregation import loss_denominator
from asyppo_jax.ops.losses import KLEstimator, kl_penalty
from asyppo_jax.ops.masked import masked_mean, masked_sum
from asyppo_jax.types import Experience, Metrics, Params


def update_actor(
    params: Params,
    opt_state: Any,
    experience: Experience,
    key: PRNGKeyArray,
    networks: Networks,
    config: Config,
    policy_loss: PolicyLoss,
) -> tuple[Params, Any, Metrics]:
    """The actor's parameters, optimizer state and metrics after all its minibatch updates.

    They minimise `policy_loss`. AsyPPO's is E (1/|o|) Σ_t −[ I^A·min(ρA, clip(ρ)A) + β·I^H·H ].
    """
    batching, algorithm, group = config.batching, config.algorithm, config.sampling.group_size
    placement = actor_placement(networks, config)
    rows = update_rows(experience, algorithm.loss_aggregation, experience.actor_mask)
    measured: Metrics = {}
    if algorithm.old_log_probs == "recompute":
        sampled = rows.old_log_probs
        rows = rows.replace(old_log_probs=frozen_log_probs(params, rows, networks, config))
        gap = jnp.abs(rows.old_log_probs - sampled)
        measured = {
            "rollout/log_prob_gap": masked_mean(gap, rows.mask),
            "rollout/log_prob_gap_max": jnp.max(jnp.where(rows.mask, gap, 0.0)),
        }
    if algorithm.positive_nll_coef:
        positive = positive_tokens(experience.rollout.rewards, rows.mask)
        rows = rows.replace(positive_weights=positive.astype(jnp.float32))

    def loss(params: Params, rows: UpdateRows, denominator: Array):
        return actor_loss(params, rows, denominator, networks, config, policy_loss)

    def read_minibatch(index: Array) -> Minibatch:  # index [m]
        sequences = jax.tree.map(lambda x: x[index], rows)
        denominator = loss_denominator(sequences.mask, algorithm.loss_aggregation)
        if sequences.positive_weights is not None:
            count = jnp.maximum(jnp.sum(sequences.positive_weights), 1)
            sequences = sequences.replace(positive_weights=sequences.positive_weights / count)
        laid_out, num_rows, _ = lay_out(sequences, batching, group)
        return Minibatch(laid_out, num_rows, denominator)

    params, opt_state, (sums, maxima, norm) = update_in_minibatches(
        loss,
        params,
        opt_state,
        actor_minibatches(
            key,
            rows.tokens.shape[0],
            epochs=algorithm.actor_epochs,
            minibatch=batching.actor_minibatch_size,
            block_size=group if batching.rows_per_prompt > 1 else 1,
        ),
        read_minibatch,
        optimizer=make_optimizer(config.actor_optimizer),
        placement=placement,
        microbatch_size=batching.rows_of(batching.microbatch_size),
    )
    return params, opt_state, _metrics(sums, maxima, norm) | measured


def positive_tokens(rewards: Float[Array, " B"], mask: Bool[Array, "B C"]) -> Bool[Array, "B C"]:
    """The tokens of right answers: of those with the task's reward 1, the highest, to rounding.

    The reward is that without a penalty for length. `mask` [B, C] has the tokens of the actor's
    loss, so answers that it leaves out are left out here.
    """
    return mask & (rewards > 1 - 1e-5)[:, None]


def actor_loss(
    params: Params,
    rows: UpdateRows,
    denominator: Array,
    networks: Networks,
    config: Config,
    policy_loss: PolicyLoss,
) -> tuple[Array, tuple[Metrics, Metrics]]:
    """A microbatch's share of the loss of its minibatch, and (sums, maxima) of metrics.

    L = (1/d) Σ n_t · (loss_t + kl_coef · KL_t) − μ/|T| Σ_{t in T} log π_t, with n and d of
    `ops.aggregation`, KL_t of `ops.losses.kl_penalty`, μ = `positive_nll_coef` and T the tokens of
    right answers in the minibatch (VAPO, arXiv 2504.05118; `positive_tokens`).
    """
    algorithm = config.algorithm
    log_probs, entropy = completion_log_probs(params, rows, networks, config.batching)
    per_token = policy_loss(log_probs, entropy, rows, algorithm)
    if algorithm.kl_coef:
        kl = _kl_to_reference(log_probs, rows, algorithm.kl_estimator)
        per_token += algorithm.kl_coef * kl
    loss = masked_sum(rows.length_normalizer * per_token, rows.mask) / denominator
    sums, maxima = _sums_and_maxima(log_probs, entropy, rows, algorithm)
    if rows.positive_weights is not None:
        nll = -masked_sum(rows.positive_weights * log_probs, rows.mask)
        loss += algorithm.positive_nll_coef * nll
        sums |= {"nll": nll, "positive": masked_sum(rows.positive_weights, rows.mask)}
    return loss, jax.lax.stop_gradient((sums | {"loss": loss}, maxima))


def _kl_to_reference(log_probs: Array, rows: UpdateRows, estimator: KLEstimator) -> Array:
    assert rows.reference_log_probs is not None, "config.algorithm.kl_coef needs a reference"
    return kl_penalty(log_probs, rows.reference_log_probs, estimator)


def _sums_and_maxima(
    log_probs: Array, entropy: Array, rows: UpdateRows, algorithm: AlgorithmConfig
) -> tuple[Metrics, Metrics]:
    """The sums and the maxima over real tokens that the metrics of any policy loss need."""
    mask, log_ratio = rows.mask, log_probs - rows.old_log_probs
    ratio, gap = jnp.exp(log_ratio), jnp.abs(log_ratio)
    low, high = ratio < 1 - algorithm.clip_eps_low, ratio > 1 + algorithm.clip_eps_high
    sums = {
        "tokens": jnp.sum(mask).astype(jnp.float32),
        "entropy": masked_sum(entropy, mask),
        "ratio": masked_sum(ratio, mask),
        "clipped": masked_sum((low | high).astype(jnp.float32), mask),
        "clipped_low": masked_sum(low.astype(jnp.float32), mask),
        "clipped_high": masked_sum(high.astype(jnp.float32), mask),
        # The low-variance estimate of KL(π_old || π): (ρ − 1) − log ρ.
        "kl": masked_sum(ratio - 1 - log_ratio, mask),
        "gap": masked_sum(gap, mask),
    }
    if algorithm.dual_clip:
        dual = (ratio > algorithm.dual_clip) & (rows.advantages < 0)
        sums["dual_clipped"] = masked_sum(dual.astype(jnp.float32), mask)
    if algorithm.ranks_tokens:
        sums |= mask_sums(ratio, entropy, rows, algorithm)
    if algorithm.kl_coef:
        sums["kl_to_reference"] = masked_sum(_kl_to_reference(log_probs, rows, "k3"), mask)
    return sums, {"gap": jnp.max(jnp.where(mask, gap, 0.0))}


def _metrics(sums: Metrics, maxima: Metrics, norm: Array) -> Metrics:
    """The metrics of the update; `sums`, `maxima` and `norm` have one entry per minibatch, [E]."""
    tokens = jnp.maximum(sums["tokens"], 1)
    dual = {}
    if "dual_clipped" in sums:  # with `dual_clip`: bad tokens whose ratio is above it
        dual["actor/dual_clip_fraction"] = jnp.mean(sums["dual_clipped"] / tokens)
    metrics = dual | {
        "actor/loss": jnp.mean(sums["loss"]),
        "actor/entropy": jnp.mean(sums["entropy"] / tokens),
        "actor/ratio_mean": jnp.mean(sums["ratio"] / tokens),
        "actor/clip_fraction": jnp.mean(sums["clipped"] / tokens),
        "actor/clip_fraction_low": jnp.mean(sums["clipped_low"] / tokens),
        "actor/clip_fraction_high": jnp.mean(sums["clipped_high"] / tokens),
        "actor/kl": jnp.mean(sums["kl"] / tokens),
        "actor/grad_norm": jnp.mean(norm),
        # In the first minibatch sampler and learner have the same weights, so a gap beyond rounding
        # is a bug. With old log-probs of the learner, the update measures it before (`measured`).
        "rollout/log_prob_gap": (sums["gap"] / tokens)[0],
        "rollout/log_prob_gap_max": maxima["gap"][0],
    }
    if "bonus" in sums:
        metrics |= mask_metrics(sums)
    if "nll" in sums:  # per minibatch; `positive` is 1, or 0 in those without a right answer
        positive = jnp.maximum(jnp.sum(sums["positive"]), 1.0)
        metrics["actor/positive_nll"] = jnp.sum(sums["nll"]) / positive
    if "kl_to_reference" in sums:
        metrics["actor/kl_to_reference"] = jnp.mean(sums["kl_to_reference"] / tokens)
    return metrics
