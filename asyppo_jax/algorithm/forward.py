"""Log-probs, entropies and values of completions, computed in microbatches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from asyppo_jax.algorithm.batching.layout import before_completions, lay_out
from asyppo_jax.algorithm.batching.microbatches import in_microbatches
from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.placement import actor_placement, critic_placement
from asyppo_jax.config import BatchingConfig, Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.ops.logits import log_probs_and_entropy
from asyppo_jax.types import Params, Rollout


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
        # With shared prompts, rows are fewer and longer by this factor, so memory stays the same.
        chunk=batching.logits_chunk * batching.rows_per_prompt,
        needed=rows.mask if batching.packing else None,  # packed rows also contain prompts
    )


def completion_values(params: Params, rows: Rows, networks: Networks) -> Array:
    """One critic's V(s_t) [R, n], read before each of a row's last n tokens is chosen."""
    return before_completions(networks.critic_values(params, rows.tokens, rows.segments), rows)


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
    """V_k(s_t) of every critic on every response: [K, B, C], float32."""
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    num_critics = jax.tree.leaves(params)[0].shape[0]
    stack = critic_placement(networks, config, num_critics).for_compute(params)

    def values(rows: Rows) -> Array:
        values_of_critics = per_critic(lambda critic: completion_values(critic, rows, networks))
        return jnp.moveaxis(values_of_critics(stack), 0, -1)

    critics_last = per_sequence(values, rows, config.batching, config.sampling.group_size)
    return jnp.moveaxis(critics_last, -1, 0)


def per_critic(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function` mapped over the critics, which are axis 0 of its arguments and of its result."""

    def run(*arguments: Any) -> Array:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(function)(*arguments)
        # One critic needs no batched matrix products, which are slower.
        return function(*jax.tree.map(lambda x: x[0], arguments))[None]

    return run
