"""New value heads, scaled by the first rollout: values start at the mean reward, all but flat."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.microbatches import in_microbatches
from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.forward import (
    completion_outputs,
    ensemble_outputs,
    per_critic,
    value_anchor,
)
from asyppo_jax.algorithm.placement import critic_placement
from asyppo_jax.config import Config, ValueConfig
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.ops.masked import masked_mean, masked_variance
from asyppo_jax.ops.value_heads import ValueHead
from asyppo_jax.ops.value_losses import hl_gauss, two_hot
from asyppo_jax.types import Params, Rollout


def init_heads_from_rollout(
    params: Params, rollout: Rollout, networks: Networks, config: Config
) -> Params:
    """The stacked critics with value heads such that mean V = mean reward, std V = `head_std`.

    Mean and std are over the real tokens of the rollout, for each critic; with an anchor, the std
    is that of V without it. Rewards are in [0, 1], and a bounded head starts at least 0.02 from its
    ends. Why: the values of a new head are noise. Large noise makes the first gradients fit it
    away, and a wrong mean makes them overshoot. The head keeps its direction w:

        z = s (w·h − m) + z₀,   V(z₀) = mean reward,   s = `head_std` / (V'(z₀) std(w·h))

    with m the mean of w·h. With an anchor a, whose mean over tokens is ā, it is
    z = s (w·h − m) + z₀ − V⁻¹(ā): long answers may be better ones, which a mean of answers does not
    know. For "bins", z₀ is the log of the mean target distribution, and V'(z₀) is the gradient of
    the mean of a softmax; no array has the outputs of all bins at all tokens.
    """
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    if networks.value_head.kind == "bins":
        return _rescale_bins(params, rollout, mask, networks, config)
    mean_reward = _mean_over_tokens(rollout.rewards, mask)
    anchor = value_anchor(rollout, config.sampling.group_size, config.value.anchor)
    mean_anchor = None if anchor is None else _mean_over_tokens(anchor, mask)
    outputs = ensemble_outputs(params, rollout, networks, config)
    head, kernel, bias = networks.value_head, params["value_kernel"], params["value_bias"]

    def of_critic(outputs, kernel, bias):
        kernel, bias = _rescale(outputs - bias, kernel, mean_reward, mask, head, config.value)
        return kernel, bias if mean_anchor is None else bias - head.inverse(mean_anchor)

    kernel, bias = jax.vmap(of_critic)(outputs, kernel, bias)
    return {**params, "value_kernel": kernel, "value_bias": bias}


def _mean_over_tokens(of_answers: Float[Array, " B"], mask: Bool[Array, "B C"]) -> Float[Array, ""]:
    """The mean over real tokens of one number per answer."""
    return masked_mean(jnp.broadcast_to(of_answers[:, None], mask.shape), mask)


def _rescale(
    raw: Float[Array, "B C"],
    kernel: Float[Array, " D"],
    mean_reward: Float[Array, ""],
    mask: Bool[Array, "B C"],
    head: ValueHead,
    config: ValueConfig,
) -> tuple[Float[Array, " D"], Float[Array, ""]]:
    start = head.inverse(mean_reward)
    slope = jax.grad(head.value)(start)
    scale = _scale(slope * raw, mask, config)
    return scale * kernel, start - scale * masked_mean(raw, mask)


def _rescale_bins(
    params: Params, rollout: Rollout, mask: Bool[Array, "B C"], networks: Networks, config: Config
) -> Params:
    """`init_heads_from_rollout` for "bins", from two statistics of the outputs w·h."""
    head, value = networks.value_head, config.value
    if value.loss == "two_hot":
        targets = two_hot(rollout.rewards, head)
    else:
        targets = hl_gauss(rollout.rewards, head, std=value.hl_gauss_std)
    tokens = jnp.maximum(jnp.sum(mask), 1)
    weights = jnp.sum(mask, axis=1, keepdims=True) / tokens
    # A bin without a target keeps a small probability.
    start = jnp.log(jnp.sum(weights * targets, axis=0) + 1e-4)
    slope = jax.grad(head.value)(start)
    first_order, totals = _bins_statistics(params, slope, rollout, mask, networks, config)

    def of_critic(first_order, total, kernel):
        scale = _scale(first_order, mask, value)
        return scale * kernel, start - scale * total / tokens

    kernel, bias = jax.vmap(of_critic)(first_order, totals, params["value_kernel"])
    return {**params, "value_kernel": kernel, "value_bias": bias}


def _bins_statistics(
    params: Params,
    slope: Float[Array, " M"],
    rollout: Rollout,
    mask: Bool[Array, "B C"],
    networks: Networks,
    config: Config,
) -> tuple[Float[Array, "K B C"], Float[Array, "K M"]]:
    """Of each critic's w·h [M]: `slope`·w·h at every real token, and the sum over real tokens."""
    batching = config.batching
    rows = Rows(rollout.tokens, sequence_segments(rollout), mask)
    laid_out, num_rows, restore = lay_out(rows, batching, config.sampling.group_size)
    num_critics = params["value_bias"].shape[0]
    stack = critic_placement(networks, config, num_critics).for_compute(params)
    biases = params["value_bias"]

    def of_microbatch(rows: Rows) -> tuple[Array, Array]:
        def of_critic(critic: Params, bias: Array) -> Array:
            return completion_outputs(critic, rows, networks) - bias.reshape(1, 1, -1)

        raw = per_critic(of_critic)(stack, biases)  # [K, R, n, M]
        totals = jnp.sum(jnp.where(rows.mask[..., None], raw, 0.0), axis=2)
        return jnp.moveaxis(raw @ slope, 0, 2), jnp.moveaxis(totals, 0, 1)

    size = batching.rows_of(batching.microbatch_size)
    first_order, totals = in_microbatches(of_microbatch, laid_out, size, num_rows)
    return jnp.moveaxis(restore(first_order), 2, 0), jnp.sum(totals, axis=0)


def _scale(
    first_order: Float[Array, "B C"], mask: Bool[Array, "B C"], config: ValueConfig
) -> Float[Array, ""]:
    """What makes the values' std `head_std`; 1 where the values do not vary."""
    std = jnp.sqrt(masked_variance(first_order, mask))
    return jnp.where(std > 1e-8, config.head_std / jnp.maximum(std, 1e-8), 1.0)
