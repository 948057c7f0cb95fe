"""Errors of values against states of known value: numbers that can be checked by hand."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from asyppo_jax.config import AlgorithmConfig
from asyppo_jax.evaluation.true_values import States
from asyppo_jax.evaluation.value_errors import (
    _at_position,
    rewards_of_others,
    value_errors,
)
from asyppo_jax.types import Rollout

B, C, GROUP = 6, 5, 3
FRACTIONS = (0.0, 0.5)


def make_states(truth, errors=0.0) -> States:
    rewards = np.array([1, 0, 0, 1, 1, 0], np.float32)
    arrays: dict[str, Any] = {
        "tokens": np.zeros((B, C + 2), np.int32),
        "prompt_mask": np.ones((B, 2), bool),
        "completion_mask": np.ones((B, C), bool),
        "log_probs": np.zeros((B, C), np.float32),
        "rewards": rewards,
        "reward_valid": np.array([True] * 5 + [False]),
    }
    truth = np.asarray(truth, float)
    return States(
        rollout=Rollout(**arrays),
        group_size=GROUP,
        fractions=FRACTIONS,
        continuations=4,
        prefix_lengths=np.array([[0] * B, [2] * B]),
        index=np.array([[0] * GROUP + [1] * GROUP, [*range(2, 2 + B)]]),
        values=truth,
        squared_errors=np.broadcast_to(np.asarray(errors, float), truth.shape),
    )


TRUTH = np.array([[0.5, 0.5, 0.5, 0.75, 0.75, 0.75], [1.0, 0.0, 0.25, 1.0, 0.5, 0.0]])


def critics(*shifts):
    """Critics whose value is the truth plus a constant at the measured tokens."""
    values = np.zeros((len(shifts), B, C))
    for k, shift in enumerate(shifts):
        values[k, :, 0], values[k, :, 2] = TRUTH[0] + shift, TRUTH[1] + shift
    return values


def test_errors_of_critics_that_are_the_truth_plus_a_constant():
    first, later = value_errors(make_states(TRUTH), critics(0.5, -0.25), AlgorithmConfig())
    for errors in (first, later):
        assert errors["mse_each"] == pytest.approx([0.25, 0.0625])
        assert errors["mse_value"] == pytest.approx(0.125**2)
        assert errors["bias"] == pytest.approx(0.125)
        assert errors["bias_each"] == pytest.approx([0.5, -0.25])
        assert errors["correlation"] == pytest.approx(1.0)
        assert errors["states"] == 6
        assert errors["sigma"] == pytest.approx(0.375)
        assert errors["sigma_rank_correlation"] is None  # σ is the same everywhere
    # The constant is the mean of the five valid rewards, 3/5.
    assert first["mse_constant"] == pytest.approx(np.mean((0.6 - TRUTH[0]) ** 2))


def test_the_sampling_error_of_the_truth_is_taken_off():
    with_noise = value_errors(make_states(TRUTH, 0.01), critics(0.5), AlgorithmConfig())[0]
    assert with_noise["mse_value"] == pytest.approx(0.25 - 0.01)
    variance = np.var(TRUTH[0], ddof=1) - 0.01
    assert with_noise["var_truth"] == pytest.approx(variance)


def test_the_group_mean_leaves_the_answer_itself_out():
    others = rewards_of_others(make_states(TRUTH))
    np.testing.assert_allclose(others, [0.0, 0.5, 0.5, 1.0, 1.0, 1.0])
    errors = value_errors(make_states(TRUTH), critics(0.0), AlgorithmConfig())[1]
    assert errors["mse_group_mean"] == pytest.approx(np.mean((others - TRUTH[1]) ** 2))


def test_sigma_that_finds_the_errors_has_a_positive_rank_correlation():
    values = critics(0.0, 0.0)
    spread = np.linspace(0.0, 0.5, B)
    values[0, :, 2] += 2 * spread  # σ = spread, and the mean is wrong by spread
    errors = value_errors(make_states(TRUTH), values, AlgorithmConfig())[1]
    expected = np.corrcoef(np.arange(B), spread**2)[0, 1]
    assert errors["sigma_rank_correlation"] == pytest.approx(expected)
    half = AlgorithmConfig(advantage_mask_fraction=0.0, entropy_mask_fraction=3 / 30)
    errors = value_errors(make_states(TRUTH), values, half)[1]
    # Three tokens of 30 are dropped: those of the largest σ, all at this position.
    assert errors["mse_highest_sigma"] == pytest.approx(np.mean(spread[3:] ** 2))
    assert errors["mse_below_highest_sigma"] == pytest.approx(np.mean(spread[:3] ** 2))
    assert errors["mse_lowest_sigma"] is None


def test_states_without_a_value_are_left_out_and_no_critics_are_fine():
    truth = TRUTH.copy()
    truth[0, 2] = np.nan
    positions = value_errors(make_states(truth), np.zeros((0, B, C)), AlgorithmConfig())
    assert [p["states"] for p in positions] == [5, 6]
    assert positions[0]["mse_value"] is None and positions[0]["mse_each"] == []


def test_the_result_is_json():
    states = dataclasses.replace(make_states(TRUTH), continuations=8)
    text = json.dumps(value_errors(states, critics(0.1, 0.2), AlgorithmConfig()))
    assert json.loads(text)[1]["fraction"] == 0.5


def test_sigma_that_only_finds_noisy_truths_has_no_rank_correlation():
    """The error of V̄ is the same everywhere; V̂* is noisier where V* is near ½, and σ is larger."""
    rng, states = np.random.default_rng(0), 3000
    truth = rng.uniform(size=states)
    samples = rng.binomial(16, truth) / 16
    noise = samples * (1 - samples) / 15
    mean = truth + rng.normal(0, 0.1, states)
    sigma = truth * (1 - truth)
    errors = _at_position(
        0.5,
        states,
        truth=samples,
        noise=noise,
        values=np.stack([mean - sigma, mean + sigma]),
        others=mean,
        constant=0.5,
        sigma=sigma,
        masks=None,
    )
    assert errors["sigma_rank_correlation"] == pytest.approx(0.0, abs=0.06)
    assert errors["mse_value"] == pytest.approx(0.01, rel=0.1)
