"""Per-token losses; `ops.aggregation` and `ops.masked` have the functions that reduce them.

PPO: Schulman et al., arXiv 1707.06347, equation 7. AsyPPO: arXiv 2510.01656. Dual clip: Ye et al.,
arXiv 1912.09729.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from asyppo_jax.ops.checks import check_arrays, check_choice, check_not_negative

KLEstimator = Literal["k1", "k2", "k3"]


@check_arrays
def clipped_surrogate(
    log_probs: Float[Array, "*S"],
    old_log_probs: Float[Array, "*S"],
    advantages: Float[Array, "*S"],
    *,
    clip_eps_low: float,
    clip_eps_high: float,
    dual_clip: float = 0.0,
) -> tuple[Float[Array, "*S"], Float[Array, "*S"]]:
    """PPO's clipped objective per token, to be maximised, and the probability ratio ρ.

    surrogate = min(ρ·A, clip(ρ, 1−ε_low, 1+ε_high)·A),  ρ = exp(log π − log π_old)

    With `dual_clip` c > 1 it is max(surrogate, c·A) where A < 0 (arXiv 1912.09729): a bad token
    that has become more than c times as likely gets no gradient, instead of one that grows with ρ.
    0: off.

    Returns `(surrogate, ratio)`. Raises `ValueError` if a clip range is a Python number below 0, or
    dual_clip is one that is neither 0 nor above 1.
    """
    check_not_negative("clip_eps_low", clip_eps_low)
    check_not_negative("clip_eps_high", clip_eps_high)
    ratio = jnp.exp(log_probs - old_log_probs)
    clipped = jnp.clip(ratio, 1.0 - clip_eps_low, 1.0 + clip_eps_high)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    if dual_clip:
        if not dual_clip > 1:
            raise ValueError(f"dual_clip is {dual_clip}; it must be above 1, or 0 for off")
        lowest = jnp.where(advantages < 0, dual_clip * advantages, -jnp.inf)
        surrogate = jnp.maximum(surrogate, lowest)
    return surrogate, ratio


@check_arrays
def asyppo_loss(
    surrogate: Float[Array, "*S"],
    entropy: Float[Array, "*S"],
    advantage_mask: Bool[Array, "*S"],
    entropy_mask: Bool[Array, "*S"],
    *,
    entropy_coef: float,
) -> Float[Array, "*S"]:
    """AsyPPO's policy loss −( I^A · surrogate + β · I^H · H ) per token, to be minimised.

    I^A masks only the surrogate, and I^H masks only the entropy. A dropped token adds 0 but still
    counts in |o|: reduce with the completion mask, not with these masks (`ops.aggregation`).
    """
    masked_surrogate = jnp.where(advantage_mask, surrogate, 0.0)
    masked_entropy = jnp.where(entropy_mask, entropy, 0.0)
    return -(masked_surrogate + entropy_coef * masked_entropy)


@check_arrays
def kl_penalty(
    log_probs: Float[Array, "*S"],
    reference_log_probs: Float[Array, "*S"],
    estimator: KLEstimator = "k3",
) -> Float[Array, "*S"]:
    """An estimate of KL(π || π_ref) per sampled token (nats), with d = log π − log π_ref.

    k1 = d,  k2 = d²/2,  k3 = exp(−d) − 1 + d    (http://joschu.net/blog/kl-approx.html)

    k1 and k3 are unbiased for tokens drawn from π, k2 is biased; k2 and k3 are never negative. As a
    loss, the expected gradients of the three differ:

        k1  0: it regularizes nothing and only adds noise
        k2  that of KL(π || π_ref)
        k3  that of KL(π_ref || π); GRPO (arXiv 2402.03300, equation 4)

    So choose k2 or k3 for a loss. No gradient flows to π_ref.

    Raises:
        ValueError: there is no such estimator.
    """
    check_choice("estimator", estimator, get_args(KLEstimator))
    log_ratio = log_probs - jax.lax.stop_gradient(reference_log_probs)
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * jnp.square(log_ratio)
    return jnp.expm1(-log_ratio) + log_ratio  # expm1: near d = 0, exp(−d) − 1 loses all digits


@check_arrays
def squared_error(values: Float[Array, "*S"], returns: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The value loss (V(s_t) − R_t)² per token: no factor ½, no clipping, no gradient to R_t."""
    return jnp.square(values - jax.lax.stop_gradient(returns))
