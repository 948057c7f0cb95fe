"""Policy losses by name or as a function: values, gradients, and what is refused."""

import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.actor_update import actor_loss
from asyppo_jax.algorithm.batching.layout import lay_out
from asyppo_jax.algorithm.batching.rows import update_rows
from asyppo_jax.algorithm.forward import completion_log_probs
from asyppo_jax.algorithm.policy_losses import asyppo, check_loss, resolve_loss
from asyppo_jax.algorithm.train_step import step_actor, train_step
from asyppo_jax.config import AlgorithmConfig, BatchingConfig, ConfigError
from asyppo_jax.ops.masked import inverse_length
from tests.algorithm.batching.test_layout import GROUP, LAYOUTS, grouped, update_rows_of


def reinforce(log_probs, entropy, rows, config):
    """−A · log π: no ratio, no clipping, no masks."""
    del entropy, config
    return -rows.advantages * log_probs


def scaled(log_probs, entropy, rows, config, *, scale):
    return scale * asyppo(log_probs, entropy, rows, config)


@pytest.fixture
def this_module(monkeypatch):
    """The name under which a setting finds the functions of this file."""
    monkeypatch.setitem(sys.modules, "my_losses", sys.modules[__name__])
    return "my_losses"


def test_a_loss_is_found_by_its_name(this_module):
    assert resolve_loss(AlgorithmConfig()) is asyppo
    assert resolve_loss(AlgorithmConfig(loss=f"{this_module}:reinforce")) is reinforce


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ppo", r"config\.algorithm\.loss is 'ppo'; give \"asyppo\" or \"module:function\""),
        ("no_such_module:f", r"config\.algorithm\.loss .* cannot be imported"),
        ("json:f", r"module 'json' has no function 'f'"),
        ("json:dumps", r"loss json:dumps raised TypeError .*loss\(log_probs, entropy, rows"),
    ],
)
def test_a_name_that_is_no_loss_is_refused_before_the_run_starts(name, message):
    with pytest.raises(ConfigError, match=message):
        resolve_loss(AlgorithmConfig(loss=name))


def test_a_loss_of_whole_numbers_is_refused():
    with pytest.raises(ConfigError, match="returned int32 numbers; return floats"):
        check_loss(lambda log_probs, *_: (log_probs > 0).astype(jnp.int32), AlgorithmConfig())


def test_a_name_that_the_settings_do_not_have_is_answered_with_those_that_they_have():
    with pytest.raises(ConfigError, match=r"config has .*clip_eps_low, clip_eps_high"):
        check_loss(lambda a, b, rows, config: a * config.epsilon, AlgorithmConfig())


def test_a_loss_that_is_already_one_number_is_refused():
    def mean(log_probs, entropy, rows, config):
        return jnp.mean(reinforce(log_probs, entropy, rows, config))

    with pytest.raises(ConfigError, match=r"mean returned \(\) for arrays of shape \(2, 3\)"):
        check_loss(mean, AlgorithmConfig())


def test_the_gradient_of_a_loss_of_ones_own_is_that_of_its_formula(setting):
    config, networks, state, experience = setting
    rows = update_rows(experience, "sequence")
    count = jnp.float32(rows.mask.shape[0])

    def own(params):
        return actor_loss(params, rows, count, networks, config, reinforce)[0]

    def formula(params):
        log_probs, _ = completion_log_probs(params, rows, networks, config.batching)
        per_token = jnp.where(rows.mask, -rows.advantages * log_probs, 0.0)
        lengths = jnp.maximum(jnp.sum(rows.mask, axis=-1), 1)
        return jnp.sum(jnp.sum(per_token, axis=-1) / lengths) / count

    loss, gradient = jax.jit(jax.value_and_grad(own))(state.actor_params)
    expected, expected_gradient = jax.jit(jax.value_and_grad(formula))(state.actor_params)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6),
        gradient,
        expected_gradient,
    )


def test_an_update_takes_a_function_or_its_name_and_metrics_do_not_depend_on_it(
    setting, this_module
):
    config, networks, state, experience = setting
    algorithm = replace(config.algorithm, loss=f"{this_module}:reinforce", actor_epochs=1)
    arrays = state.actor_params, state.actor_opt_state, state.key, state.step, experience

    def update(loss):
        options = {"networks": networks, "config": replace(config, algorithm=algorithm)}
        return jax.jit(partial(step_actor, **options, policy_loss=loss))(*arrays)

    by_name, by_function = update(resolve_loss(algorithm)), update(reinforce)
    jax.tree.map(np.testing.assert_array_equal, by_name[0], by_function[0])
    default, twice = update(asyppo), update(partial(scaled, scale=2.0))
    assert set(by_name[2]) == set(default[2])
    # The first minibatch's log-probs are those of the same parameters under any loss.
    assert by_name[2]["rollout/log_prob_gap"] == default[2]["rollout/log_prob_gap"]
    np.testing.assert_allclose(twice[2]["actor/grad_norm"], 2 * default[2]["actor/grad_norm"], 0.1)


def _gspo_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "your_own.md").read_text()
    snippet = re.search(r"^```python\n(# my_gspo\.py\n.*?)^```", page, re.M | re.S)
    assert snippet
    scope: dict = {}
    exec(snippet[1], scope)
    return scope["gspo"]


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_gspo_of_the_page_has_value_and_gradient_of_its_formula_in_every_layout(name):
    """J_i = min(s_i A_i, clip(s_i) A_i), arXiv 2507.18071, for answers with one advantage each."""
    config, batching = AlgorithmConfig(), replace(BatchingConfig(), **LAYOUTS[name])
    gspo, plain = check_loss(_gspo_of_the_page(), config), update_rows_of(grouped(longest=4))
    size, keys = plain.mask.shape, jax.random.split(jax.random.key(0), 2)
    log_ratio = 0.3 * jax.random.normal(keys[0], size)  # some s_i are clipped, some are not
    advantage = jax.random.normal(keys[1], (size[0], 1))
    plain = plain.replace(
        advantages=jnp.where(plain.mask, advantage, 0.0),
        length_normalizer=inverse_length(plain.mask),
    )

    def own(log_probs):
        rows, _, _ = lay_out(plain.replace(returns=log_probs), batching, GROUP)
        loss = gspo(rows.returns, jnp.zeros_like(rows.returns), rows, config)
        return jnp.sum(jnp.where(rows.mask, rows.length_normalizer * loss, 0.0))

    def formula(log_probs):
        length = jnp.maximum(plain.mask.sum(axis=1), 1)
        s = jnp.exp(jnp.where(plain.mask, log_probs, 0.0).sum(axis=1) / length)
        clipped = jnp.clip(s, 1 - config.clip_eps_low, 1 + config.clip_eps_high)
        terms = jnp.minimum(s * advantage[:, 0], clipped * advantage[:, 0])
        return -jnp.sum(jnp.where(plain.mask.any(axis=1), terms, 0.0))

    ours, expected = (jax.jit(jax.value_and_grad(f))(log_ratio) for f in (own, formula))
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], expected[1], rtol=1e-4, atol=1e-6)
    gradients = np.abs(np.asarray(expected[1])).sum(axis=1)[np.asarray(plain.mask.any(axis=1))]
    assert (gradients == 0).any() and (gradients > 0).any()


def test_a_loss_without_a_gradient_or_with_numpy_is_refused():
    def constant(log_probs, entropy, rows, config):
        return -rows.advantages * rows.old_log_probs

    def branches(log_probs, entropy, rows, config):
        return log_probs if log_probs.mean() > 0 else entropy

    with pytest.raises(ConfigError, match=r"depends on neither log_probs nor entropy"):
        check_loss(constant, AlgorithmConfig())
    with pytest.raises(ConfigError, match=r"TracerBoolConversionError, because .*jnp\.where"):
        check_loss(branches, AlgorithmConfig())
    with pytest.raises(ConfigError, match=r"the loss is 'a:b'; give the function itself"):
        check_loss("a:b", AlgorithmConfig())  # pyright: ignore[reportArgumentType]


def test_a_loss_may_read_the_reference_of_a_run_that_has_one():
    def mine(log_probs, entropy, rows, config):
        return jnp.square(log_probs - rows.reference_log_probs)

    assert check_loss(mine, AlgorithmConfig(kl_coef=0.1)) is mine
    with pytest.raises(ConfigError, match=r"mine raised"):
        check_loss(mine, AlgorithmConfig())


def test_a_step_that_is_compiled_finds_a_loss_by_its_name(setting, this_module):
    config, networks, state, experience = setting
    algorithm = replace(config.algorithm, loss=f"{this_module}:reinforce", actor_epochs=1)
    named = replace(config, algorithm=algorithm)
    step = jax.jit(partial(train_step, networks=networks, config=named))
    next_state, metrics = step(state, experience.rollout)
    assert int(next_state.step) == int(state.step) + 1 and metrics["actor/grad_norm"] > 0


@pytest.mark.parametrize(
    ("read", "advice"),
    [
        (
            lambda rows: -rows.reference_log_probs,
            r"these are None: rows\.reference_log_probs, .*kl_coef above 0",
        ),
        (
            lambda rows: rows.advantage,
            r"rows has tokens, segments, mask, old_log_probs, advantages",
        ),
    ],
)
def test_what_rows_do_not_have_is_said(read, advice):
    with pytest.raises(ConfigError, match=advice):
        check_loss(
            lambda log_probs, entropy, rows, config: log_probs + read(rows), AlgorithmConfig()
        )
