"""Log-probs, entropies and values of completions, computed in microbatches."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from asyppo_jax.algorithm.batching.layout import before_completions, lay_out
from asyppo_jax.algorithm.batching.microbatches import in_microbatches
from asyppo_jax.algorithm.batching.rows import Rows, as_critics_read, sequence_segments
from asyppo_jax.algorithm.placement import actor_placement, critic_placement
from asyppo_jax.config import BatchingConfig, Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.ops.baselines import group_mean_of_others, shrunken_group_mean
from asyppo_jax.ops.logits import log_probs_and_entropy
from asyppo_jax.runtime.sharding import constrain
from asyppo_jax.types import Params, Rollout


def completion_log_probs(
    params: Params, rows: Rows, networks: Networks, batching: BatchingConfig
) -> tuple[Array, Array]:
    """log π(token) and the entropy of each row's last n tokens, both [R, n] (nats)."""
    length = rows.mask.shape[1]
    hidden = networks.actor_hidden(params, rows.tokens, rows.segments)
    # All-gathered over `data` once, not in every chunk of positions. The transpose of this is that
    # each device sums its own gradient over the chunks, and the sum is reduced once.
    head = constrain(networks.actor_head(params).astype(hidden.dtype), [None, "vocab"])
    return log_probs_and_entropy(
        before_completions(hidden, rows),  # the hidden state at t predicts token t + 1
        head,
        rows.tokens[:, -length:],
        # With shared prompts, rows are fewer and longer by this factor, so memory stays the same.
        chunk=batching.logits_chunk * batching.rows_per_prompt,
        needed=rows.mask if batching.packing else None,  # packed rows also contain prompts
    )


def completion_values(params: Params, rows: Rows, networks: Networks) -> Array:
    """One critic's V(s_t) [R, n], read before each of a row's last n tokens is chosen."""
    return networks.value_head.value(completion_outputs(params, rows, networks))


def completion_outputs(params: Params, rows: Rows, networks: Networks) -> Array:
    """The outputs z of one critic's value head [R, n, ...] for the same tokens."""
    return before_completions(networks.critic_outputs(params, rows.tokens, rows.segments), rows)


def per_sequence(
    function: Callable[[Rows], Array], rows: Rows, batching: BatchingConfig, group_size: int
) -> Array:
    """The results of `function` (rows -> [R, n, ...]) by sequence, [B, C, ...]; in microbatches."""
    laid_out, num_rows, restore = lay_out(rows, batching, group_size)
    size = batching.rows_of(batching.microbatch_size)
    return restore(in_microbatches(function, laid_out, size, num_rows))


def frozen_log_probs(params: Params, rows: Rows, networks: Networks, config: Config) -> Array:
    """log π(token) of one-sequence rows under constant parameters: [B, C], in microbatches."""
    frozen = actor_placement(networks, config).for_compute(params)

    def log_probs(rows: Rows) -> Array:
        return completion_log_probs(frozen, rows, networks, config.batching)[0]

    return per_sequence(log_probs, rows, config.batching, config.sampling.group_size)


def ensemble_values(params: Params, rollout: Rollout, networks: Networks, config: Config) -> Array:
    """V_k(s_t) of every critic on every response: [K, B, C], float32.

    With `config.value.anchor` they depend on the rewards of other responses, too.
    """
    anchor = value_anchor(rollout, config.sampling.group_size, config.value.anchor)
    if anchor is None:
        return _ensemble(completion_values, params, rollout, networks, config)
    outputs = ensemble_outputs(params, rollout, networks, config)
    return networks.value_head.value_around(outputs, anchor)


def ensemble_outputs(params: Params, rollout: Rollout, networks: Networks, config: Config) -> Array:
    """The outputs z of every critic's value head: [K, B, C] or [K, B, C, bins], float32."""
    return _ensemble(completion_outputs, params, rollout, networks, config)


def _ensemble(
    read: Callable[[Params, Rows, Networks], Array],
    params: Params,
    rollout: Rollout,
    networks: Networks,
    config: Config,
) -> Array:
    """What `read` gives for each critic, in microbatches: [K, B, C, ...]."""
    rollout = as_critics_read(rollout, config.value)
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    num_critics = jax.tree.leaves(params)[0].shape[0]
    stack = critic_placement(networks, config, num_critics).for_compute(params)

    def outputs(rows: Rows) -> Array:
        outputs_of_critics = per_critic(lambda critic: read(critic, rows, networks))
        return jnp.moveaxis(outputs_of_critics(stack), 0, 2)

    critics_third = per_sequence(outputs, rows, config.batching, config.sampling.group_size)
    return jnp.moveaxis(critics_third, 2, 0)


def value_anchor(
    rollout: Rollout, group_size: int, kind: Literal["none", "group", "shrunken_group"]
) -> Array | None:
    """The value that a critic's output of 0 stands for, per response [B]; None for "none".

    V = head(head⁻¹(anchor) + z): for a linear head, the anchor plus the output. No response's own
    reward enters it (`ops.baselines`).
    """
    if kind == "none":
        return None
    estimate = group_mean_of_others if kind == "group" else shrunken_group_mean
    return estimate(rollout.rewards, rollout.reward_valid, group_size)


def per_critic(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function` mapped over the critics, which are axis 0 of its arguments and of its result."""

    def run(*arguments: Any) -> Array:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(function)(*arguments)
        # One critic needs no batched matrix products, which are slower.
        return function(*jax.tree.map(lambda x: x[0], arguments))[None]

    return run


def plain_batching(batch: int, config: Config) -> BatchingConfig:
    """One sequence per row, in microbatches of a size that divides `batch` and `microbatch_size`.

    Both are multiples of the data axis, and so is the size.
    """
    size = math.gcd(batch, config.batching.microbatch_size)
    return dataclasses.replace(
        config.batching, microbatch_size=size, packing=False, rows_per_prompt=1
    )
