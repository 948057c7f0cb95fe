"""New value heads, scaled by the first rollout: values start at the mean reward, all but flat."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.algorithm.forward import ensemble_outputs, value_anchor
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

    Both are over the real tokens of the rollout, for each critic, and of V less its anchor; rewards
    are in [0, 1], and a bounded head starts at least 0.02 from its ends. A new head
    is noise, and its values are too: large ones make the first gradients fit the noise away, and a
    wrong mean makes them overshoot. The head keeps its direction w:

        z = s (w·h − m) + z₀,   V(z₀) = mean reward,   s = `head_std` / (V'(z₀) std(w·h))

    with m the mean of w·h. With an anchor a, whose mean over tokens is ā, it is
    z = s (w·h − m) + z₀ − V⁻¹(ā): long answers may be better ones, which a mean of answers does not
    know. For "bins", z₀ is the log of the mean target distribution, and V'(z₀) is the gradient of
    the mean of a softmax.
    """
    mask = rollout.completion_mask & rollout.reward_valid[:, None]
    mean_reward = _mean_over_tokens(rollout.rewards, mask)
    anchor = value_anchor(rollout, config.sampling.group_size, config.value.anchor)
    mean_anchor = None if anchor is None else _mean_over_tokens(anchor, mask)
    outputs = ensemble_outputs(params, rollout, networks, config)
    head, kernel, bias = networks.value_head, params["value_kernel"], params["value_bias"]

    def of_critic(outputs, kernel, bias):
        raw = outputs - bias.reshape(1, 1, *bias.shape)
        if head.kind == "bins":
            return _rescale_bins(raw, kernel, rollout, mask, head, config.value)
        kernel, bias = _rescale(raw, kernel, mean_reward, mask, head, config.value)
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
    raw: Float[Array, "B C M"],
    kernel: Float[Array, "D M"],
    rollout: Rollout,
    mask: Bool[Array, "B C"],
    head: ValueHead,
    config: ValueConfig,
) -> tuple[Float[Array, "D M"], Float[Array, " M"]]:
    if config.loss == "two_hot":
        targets = two_hot(rollout.rewards, head)
    else:
        targets = hl_gauss(rollout.rewards, head, std=config.hl_gauss_std)
    weights = jnp.sum(mask, axis=1, keepdims=True) / jnp.maximum(jnp.sum(mask), 1)
    # A bin without a target keeps a small probability.
    start = jnp.log(jnp.sum(weights * targets, axis=0) + 1e-4)
    slope = jax.grad(head.value)(start)
    scale = _scale(raw @ slope, mask, config)
    mean = jnp.sum(jnp.where(mask[..., None], raw, 0.0), axis=(0, 1)) / jnp.maximum(
        jnp.sum(mask), 1
    )
    return scale * kernel, start - scale * mean


def _scale(
    first_order: Float[Array, "B C"], mask: Bool[Array, "B C"], config: ValueConfig
) -> Float[Array, ""]:
    """What makes the values' std `head_std`; 1 where the values do not vary."""
    std = jnp.sqrt(masked_variance(first_order, mask))
    return jnp.where(std > 1e-8, config.head_std / jnp.maximum(std, 1e-8), 1.0)
