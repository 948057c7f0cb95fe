"""Numbers that make no sense are refused where they are given, and traced ones are let through."""

import functools
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from asyppo_jax.ops.checks import (
    check_choice,
    check_fraction,
    check_not_negative,
    check_positive,
)
from asyppo_jax.ops.ensemble import (
    critic_shards,
    disagreement_masks,
    ensemble_value,
    mask_scores,
    value_mean_and_std,
)
from asyppo_jax.ops.losses import clipped_surrogate
from asyppo_jax.ops.masked import masked_quantile
from asyppo_jax.ops.returns import (
    gae,
    group_advantages,
    length_adaptive_lambda,
    monte_carlo_returns,
)
from asyppo_jax.ops.value_heads import ValueHead
from asyppo_jax.ops.value_losses import clipped_squared_error, hl_gauss, sparse_positions

X, MASK, KEY = jnp.ones((2, 3)), jnp.ones((2, 3), bool), jax.random.key(0)
ROW, ROW_MASK = X[0], MASK[0]
BINS = ValueHead("bins", bins=4)


def masks(advantage=0.2, entropy=0.2):
    return disagreement_masks(
        X, MASK, KEY, advantage_mask_fraction=advantage, entropy_mask_fraction=entropy
    )


def unchecked(function: Any) -> Any:
    """The function without the suite's check of types, which would refuse an unknown choice."""
    return inspect.unwrap(function)


def shards(critic_data):
    sizes = {"num_prompts": 2, "group_size": 2, "num_critics": 2}
    return unchecked(critic_shards)(KEY, **sizes, critic_data=critic_data)


def surrogate(low=0.2, high=0.2, dual_clip=0.0):
    return clipped_surrogate(X, X, X, clip_eps_low=low, clip_eps_high=high, dual_clip=dual_clip)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: masks(advantage=20.0),
            r"advantage_mask_fraction is 20.0; .* \[0, 1\)$",
        ),
        (lambda: masks(entropy=1.0), r"entropy_mask_fraction is 1.0; it must be in \[0, 1\)$"),
        (lambda: masks(advantage=math.nan), "advantage_mask_fraction is nan"),
        (
            lambda: unchecked(ensemble_value)(X[None], "median"),
            "aggregation is 'median'; .* 'mean', 'min'",
        ),
        (
            lambda: unchecked(mask_scores)(X, None, "sigma"),
            "mask_by is 'sigma'; choose one of 'std'",
        ),
        (lambda: shards("prompt"), "critic_data is 'prompt'; .* 'responses', 'prompts', 'all'"),
        (lambda: gae(ROW, ROW, ROW_MASK, gamma=1.01, gae_lambda=1.0), r"gamma is 1.01.*\[0, 1\]$"),
        (
            lambda: gae(ROW, ROW, ROW_MASK, gamma=1.0, gae_lambda=95.0),
            "gae_lambda is 95.0; it",
        ),
        (lambda: monte_carlo_returns(ROW, ROW_MASK, gamma=-0.1), "gamma is -0.1; it must be in"),
        (lambda: length_adaptive_lambda(ROW_MASK, 0.0), "alpha is 0.0; it must be above 0"),
        (lambda: surrogate(low=-0.2), "clip_eps_low is -0.2; it must be 0 or more"),
        (lambda: surrogate(high=math.nan), "clip_eps_high is nan; it must be 0 or more"),
        (lambda: surrogate(dual_clip=0.5), "dual_clip is 0.5; it must be above 1, or 0 for off"),
        (lambda: clipped_squared_error(X, X, X, clip_eps=-1.0), "clip_eps is -1.0; it must be 0"),
        (lambda: sparse_positions(MASK, (0.5, 50.0)), r"a fraction is 50.0; it must be in \[0, 1"),
        (lambda: masked_quantile(X, MASK, 90.0), r"q is 90.0; it must be in \[0, 1\]"),
        (lambda: group_advantages(ROW, ROW_MASK, epsilon=0.0), "epsilon is 0.0; it must be above"),
        (lambda: hl_gauss(X, BINS, std=0.0), "std is 0.0; it must be above 0"),
    ],
)
def test_a_number_without_sense_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_ends_of_the_ranges_are_allowed():
    assert all(bool(jnp.all(mask)) for mask in masks(0.0, 0.0))
    surrogate(low=0.0, high=math.inf)
    gae(ROW, ROW, ROW_MASK, gamma=1.0, gae_lambda=0.0)
    masked_quantile(X, MASK, 1.0)


def test_traced_numbers_are_not_looked_at():
    @jax.jit
    def checked(number):
        check_fraction("x", number)
        check_not_negative("x", number)
        check_positive("x", number)
        return number

    assert checked(-7.0) == -7.0
    jitted = jax.jit(lambda x: gae(ROW, ROW, ROW_MASK, gamma=1.0, gae_lambda=x))
    expected = gae(ROW, ROW, ROW_MASK, gamma=1.0, gae_lambda=0.5)
    assert jnp.array_equal(jitted(jnp.float32(0.5)), expected)


def test_lists_and_numbers_become_the_kind_of_their_annotation():
    rewards: Any = [0, 0, 1]  # as a notebook has them
    values: Any = [0.25, 0.5, 0.75]
    mask: Any = [1, 1, 1]
    expected = gae(
        jnp.array([0.0, 0.0, 1.0]), jnp.array(values), ROW_MASK, gamma=1.0, gae_lambda=1.0
    )
    assert jnp.array_equal(gae(rewards, values, mask, gamma=1.0, gae_lambda=1.0), expected)
    assert value_mean_and_std(jnp.zeros((2, 1, 3), jnp.bfloat16))[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gae(X, X, MASK, gamma=1.0, gae_lambda=1.0),
            r"^gae takes token_rewards \[C\], values \[C\], mask \[C\], and the shapes given are "
            r"\[2, 3\], \[2, 3\], \[2, 3\]; for a batch, use jax\.vmap\(lambda token_rewards, "
            r"values, mask: gae\(token_rewards, values, mask, \.\.\.\)\)$",
        ),
        (
            lambda: gae(ROW, ROW[:2], ROW_MASK, gamma=1.0, gae_lambda=1.0),
            r"are \[3\], \[2\], \[3\]$",
        ),
        (lambda: value_mean_and_std(ROW), r"takes values \[K, B, C\], and .* given are \[3\]$"),
        (
            lambda: clipped_surrogate(X, X, ROW, clip_eps_low=0.2, clip_eps_high=0.2),
            r"advantages \[\*S\], and the shapes given are \[2, 3\], \[2, 3\], \[3\]$",
        ),
        (lambda: group_advantages(ROW, ROW_MASK[:2]), r"rewards \[G\], valid \[G\], and"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_those_that_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_arguments_that_do_not_fit_are_refused_with_those_that_do():
    arguments = (ROW, ROW, ROW_MASK, 1.0, 0.95)
    names = r"gae\(token_rewards, values, mask, \*, gamma, gae_lambda\)"
    with pytest.raises(TypeError, match=f"{names}: too many positional arguments"):
        functools.partial(gae, *arguments)()


def test_shapes_are_checked_by_example_under_vmap_and_jit():
    batched = jax.jit(jax.vmap(lambda r, v, m: gae(r, v, m, gamma=1.0, gae_lambda=1.0)))
    assert batched(X, X, MASK).shape == X.shape


def test_a_name_that_is_no_choice_is_refused_with_the_choices():
    check_choice("estimator", "k3", ("k2", "k3"))
    with pytest.raises(ValueError, match=r"^estimator is 'k4'; choose one of 'k2', 'k3'$"):
        check_choice("estimator", "k4", ("k2", "k3"))
