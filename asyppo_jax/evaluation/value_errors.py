"""Critics against the true values of states: errors, correlation, bias, and what σ knows of them.

All squared errors are against V* (`true_values`), less the sampling error of its estimate: with
V̂* = V* + e and independent V, E (V − V̂*)² − E e² = E (V − V*)². So a small one may be negative.
"""

from dataclasses import replace
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from asyppo_jax.algorithm.forward import ensemble_values, plain_batching
from asyppo_jax.config import AlgorithmConfig
from asyppo_jax.evaluation.true_values import States
from asyppo_jax.ops.baselines import group_mean_of_others
from asyppo_jax.ops.ensemble import disagreement_masks
from asyppo_jax.runtime.sharding import batch_sharding, put
from asyppo_jax.sampling.loaded import LoadedCritics


class PositionErrors(TypedDict):
    """One fraction of the answers. None: not defined, such as a correlation with a constant."""

    fraction: float
    states: int  # answers whose state at this fraction has a known value
    distinct: int  # different prefixes among them
    value_truth: float  # mean of V*
    var_truth: float | None  # of V*: the error of the best constant
    mse_value: float | None  # of the mean value V̄
    mse_each: list[float]  # of each critic
    mse_group_mean: float  # of the mean reward of the group's other answers
    mse_constant: float  # of the mean reward of all answers
    correlation: float | None  # of V̄ with V̂*; noise in V̂* lowers it
    correlation_each: list[float | None]
    correlation_group_mean: float | None
    bias: float | None  # mean of V̄ − V̂*
    bias_each: list[float]
    sigma: float | None  # mean of σ
    # The correlation of σ's ranks with (V̄ − V̂*)² less the sampling error of V̂*: above 0,
    # disagreement finds errors. (V̄ − V̂*)² itself would be no measure: where V* is near ½, V̂* is
    # noisier, and σ is often larger.
    sigma_rank_correlation: float | None
    # The error of V̄ where a mask drops the token and where it keeps it. The advantage mask drops
    # the lowest σ of all tokens, the entropy mask the highest.
    mse_lowest_sigma: float | None
    mse_above_lowest_sigma: float | None
    mse_highest_sigma: float | None
    mse_below_highest_sigma: float | None


def values_at(critics: LoadedCritics, states: States) -> Float[np.ndarray, "K B C"]:
    """V_k(s_t) of loaded critics on the answers of `states`, in microbatches."""
    config, rollout = critics.config, states.rollout
    config = replace(
        config,
        batching=plain_batching(len(rollout.rewards), config),
        sampling=replace(config.sampling, group_size=states.group_size),
    )
    by_row = batch_sharding(critics.mesh)
    with jax.set_mesh(critics.mesh):
        rollout = put(rollout, jax.tree.map(lambda _: by_row, rollout))
        values = _ensemble_values(critics.params, rollout, networks=critics.networks, config=config)
    return np.asarray(values)


_ensemble_values = jax.jit(ensemble_values, static_argnames=("networks", "config"))


def value_errors(
    states: States, values: Float[np.ndarray, "K B C"], config: AlgorithmConfig
) -> list[PositionErrors]:
    """The errors at each fraction of the answers; `values` are V_k(s_t), K may be 0."""
    values = np.asarray(values, np.float64)
    mask = np.asarray(states.rollout.completion_mask)
    others = rewards_of_others(states)
    valid = np.asarray(states.rollout.reward_valid)
    constant = float(np.mean(np.asarray(states.rollout.rewards)[valid])) if valid.any() else np.nan
    sigma = np.std(values, axis=0) if len(values) else np.zeros(mask.shape)
    masks = _masks(sigma, mask, config) if len(values) > 1 else None
    rows = np.arange(mask.shape[0])
    result = []
    for f, fraction in enumerate(states.fractions):
        known = np.isfinite(states.values[f]) & np.isfinite(others)
        at = rows[known], states.prefix_lengths[f][known]
        result.append(
            _at_position(
                fraction,
                len(np.unique(states.index[f][known])),
                truth=states.values[f][known],
                noise=states.squared_errors[f][known],
                values=values[:, *at],
                others=others[known],
                constant=constant,
                sigma=sigma[at],
                masks=None if masks is None else (masks[0][at], masks[1][at]),
            )
        )
    return result


def rewards_of_others(states: States) -> Float[np.ndarray, " B"]:
    """The mean reward of the other scored answers to the same prompt; NaN if there are none."""
    valid = jnp.asarray(states.rollout.reward_valid)
    means = group_mean_of_others(jnp.asarray(states.rollout.rewards), valid, states.group_size)
    groups = np.asarray(valid).reshape(-1, states.group_size)
    others = groups.sum(axis=1, keepdims=True) - groups
    return np.where(others.reshape(-1) > 0, np.asarray(means, np.float64), np.nan)


def _masks(
    sigma: Float[np.ndarray, "B C"], mask: Bool[np.ndarray, "B C"], config: AlgorithmConfig
) -> tuple[np.ndarray, np.ndarray]:
    advantage, entropy = disagreement_masks(
        jnp.asarray(sigma, jnp.float32),
        jnp.asarray(mask),
        jax.random.key(0),  # breaks ties
        advantage_mask_fraction=config.advantage_mask_fraction,
        entropy_mask_fraction=config.entropy_mask_fraction,
    )
    return np.asarray(advantage), np.asarray(entropy)


def _at_position(
    fraction: float,
    distinct: int,
    *,
    truth: Float[np.ndarray, " S"],
    noise: Float[np.ndarray, " S"],
    values: Float[np.ndarray, "K S"],
    others: Float[np.ndarray, " S"],
    constant: float,
    sigma: Float[np.ndarray, " S"],
    masks: tuple[np.ndarray, np.ndarray] | None,
) -> PositionErrors:
    def error(estimate: np.ndarray | float, where: np.ndarray | None = None) -> float:
        squared = (estimate - truth) ** 2 - noise
        return float(np.mean(squared if where is None else squared[where]))

    def error_where(where: np.ndarray) -> float | None:
        return error(mean, where) if where.any() else None

    num_critics = len(values)
    mean = values.mean(axis=0) if num_critics else np.zeros_like(truth)
    parts: list[float | None] = [None] * 4
    if masks is not None:
        advantage, entropy = masks
        parts = [error_where(kept) for kept in (~advantage, advantage, ~entropy, entropy)]
    varies = len(truth) > 1
    return PositionErrors(
        fraction=float(fraction),
        states=len(truth),
        distinct=distinct,
        value_truth=float(np.mean(truth)),
        var_truth=float(np.var(truth, ddof=1) - np.mean(noise)) if varies else None,
        mse_value=error(mean) if num_critics else None,
        mse_each=[error(v) for v in values],
        mse_group_mean=error(others),
        mse_constant=error(constant),
        correlation=_pearson(mean, truth) if num_critics else None,
        correlation_each=[_pearson(v, truth) for v in values],
        correlation_group_mean=_pearson(others, truth),
        bias=float(np.mean(mean - truth)) if num_critics else None,
        bias_each=[float(np.mean(v - truth)) for v in values],
        sigma=float(np.mean(sigma)) if num_critics > 1 else None,
        sigma_rank_correlation=_pearson(rankdata(sigma), (mean - truth) ** 2 - noise)
        if num_critics > 1
        else None,
        mse_lowest_sigma=parts[0],
        mse_above_lowest_sigma=parts[1],
        mse_highest_sigma=parts[2],
        mse_below_highest_sigma=parts[3],
    )


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """None for fewer than three points, or if one is constant to rounding: it would be noise."""
    if len(x) < 3 or min(np.ptp(x), np.ptp(y)) <= 1e-6:
        return None
    return float(np.corrcoef(x, y)[0, 1])
