"""The phases as separate programs, with idle state on the host: the numbers of one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.offload import (
    initial_state,
    make_train_step,
    programs,
    reference_shardings,
    resting_shardings,
)
from asyppo_jax.runtime.sharding import make_mesh
from tests.tiny import (
    assert_trees_close,
    jit_step,
    make_actor_params,
    make_config,
    make_networks,
    make_rollout,
)
from tests.tiny import make_state as make_plain_state


def _begin(num_critics=2, **changes):
    config, networks = make_config(num_critics, **changes), make_networks(num_critics)
    mesh = make_mesh(config.mesh)
    plain = make_plain_state(config, networks)
    at_rest = resting_shardings(config, networks, mesh)
    # Copies: the state is donated, and `plain` serves other tests too.
    params = jax.tree.map(
        lambda x, place: jax.device_put(jnp.copy(x), place),
        (plain.actor_params, plain.critic_params),
        (at_rest.actor_params, at_rest.critic_params),
    )
    return config, networks, plain, initial_state(config, networks, mesh, *params)


@functools.cache
def _offloaded(networks, config):
    return make_train_step(networks, config, make_mesh(config.mesh))


def _kinds(tree):
    return {x.sharding.memory_kind for x in jax.tree.leaves(tree)}


def test_options_of_the_tpu_compiler_are_given_to_no_other():
    config = make_config(mesh__reduce_scatter=True, mesh__async_gathers=True)
    networks = make_networks()
    for program in programs(networks, config, make_mesh(config.mesh)).values():
        assert "compiler_options" not in program.jit


@pytest.mark.parametrize("offload", ["none", "optimizers", "idle"])
def test_the_state_begins_as_if_it_were_made_at_once(offload):
    _, _, plain, state = _begin(mesh__offload=offload)
    assert_trees_close(plain, state, atol=0)


@pytest.mark.parametrize(
    ("offload", "num_critics", "values"),
    [
        ("idle", 2, "before_update"),
        pytest.param("optimizers", 2, "before_update", marks=pytest.mark.slow),
        pytest.param("idle", 2, "after_update", marks=pytest.mark.slow),
        pytest.param("idle", 0, "before_update", marks=pytest.mark.slow),
    ],
)
def test_two_steps_phase_by_phase_equal_two_steps_in_one_program(offload, num_critics, values):
    config, networks, plain, state = _begin(
        num_critics, mesh__offload=offload, algorithm__value_timing=values
    )
    rollout = make_rollout(config)
    offloaded, one_program = _offloaded(networks, config), jit_step(config, networks)
    for _ in range(2):
        plain, expected = one_program(plain, rollout)
        with jax.transfer_guard("disallow"):  # nothing crosses unseen, as in a run
            state, metrics = offloaded(state, rollout)
        assert metrics.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert_trees_close(plain, state, atol=1e-6)


@pytest.mark.parametrize("offload", [pytest.param("none", marks=pytest.mark.slow), "idle"])
def test_a_step_with_a_reference_equals_one_program_and_leaves_the_reference_in_place(offload):
    config, networks, plain, state = _begin(0, mesh__offload=offload, algorithm__kl_coef=0.5)
    rollout, params = make_rollout(config), make_actor_params(networks, seed=1)
    shardings = reference_shardings(config, networks, make_mesh(config.mesh))
    reference = jax.tree.map(lambda x, place: jax.device_put(jnp.copy(x), place), params, shardings)
    kinds = _kinds(reference)
    assert kinds == {"pinned_host" if offload == "idle" else "device"}
    for _ in range(2):
        plain, expected = jit_step(config, networks)(plain, rollout, reference_params=params)
        with jax.transfer_guard("disallow"):
            state, metrics = _offloaded(networks, config)(state, rollout, reference)
        assert expected["actor/kl_to_reference"] > 0
        assert_trees_close(expected, metrics, atol=1e-6)
    assert_trees_close(plain, state, atol=1e-6)
    assert _kinds(reference) == kinds


def test_between_steps_the_fields_that_sampling_does_not_read_are_on_the_host():
    config, networks, _, state = _begin(mesh__offload="idle")
    for now in (state, _offloaded(networks, config)(state, make_rollout(config))[0]):
        assert _kinds(now.actor_params) == {"device"}
        offloaded_fields = now.critic_params, now.critic_opt_state, now.actor_opt_state
        assert _kinds(offloaded_fields) == {"pinned_host"}


def test_optimizers_alone_leave_the_networks_on_the_devices():
    config, networks, _, state = _begin(mesh__offload="optimizers")
    state, _ = _offloaded(networks, config)(state, make_rollout(config))
    assert _kinds((state.actor_params, state.critic_params)) == {"device"}
    assert _kinds((state.actor_opt_state, state.critic_opt_state)) == {"pinned_host"}
