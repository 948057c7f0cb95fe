"""What a plan says without the compiler: a state that is too large, and axes that stay whole."""

import dataclasses

import jax
import pytest

from asyppo_jax.config import ConfigError, MeshConfig
from asyppo_jax.models.actor_critic import check_mesh_divides_heads
from asyppo_jax.planning.early_checks import StateTooLarge, check_state_fits, replicated_axes
from asyppo_jax.planning.topology import Chip
from asyppo_jax.runtime.sharding import make_mesh
from tests.tiny import make_config, make_networks

MESH = make_mesh(MeshConfig(), jax.devices()[:1])


def _chip(hbm_bytes: float, devices: int = 1) -> Chip:
    return Chip(hbm_bytes, 1.0, 1.0, 1.0, 2, 1, devices)


def _state_bytes(config) -> float:
    """The least memory that is accepted, by bisection."""
    low, high = 1.0, 2.0**40
    while high - low > 1:
        middle = (low + high) // 2
        try:
            check_state_fits(config, make_networks(), MESH, _chip(middle))
            high = middle
        except StateTooLarge:
            low = middle
    return high


def test_a_state_that_is_larger_than_a_chip_is_refused_with_the_least_number_of_chips():
    config = make_config(0)
    state = _state_bytes(config)
    check_state_fits(config, make_networks(), MESH, _chip(state))
    for memory, chips in ((state - 1, 2), (state / 4.5, 5)):
        advice = (
            rf"at least {chips} chips with config\.mesh\.data = -1, or set config\.mesh\.offload"
        )
        message = rf"need 0\.0 GiB per chip, but a chip has 0 GiB; .*{advice}"
        with pytest.raises(StateTooLarge, match=message):
            check_state_fits(config, make_networks(), MESH, _chip(memory))


def test_the_least_number_of_chips_counts_chips_of_two_devices():
    config = make_config(0)
    memory = _state_bytes(config) / 4.5
    with pytest.raises(StateTooLarge, match="at least 3 chips"):
        check_state_fits(config, make_networks(), MESH, _chip(memory, devices=2))


def test_offloaded_fields_do_not_count():
    config = make_config(0)
    optimizers = dataclasses.replace(config, mesh=MeshConfig(offload="optimizers"))
    full, params = (_state_bytes(c) for c in (config, optimizers))
    assert params < full / 2  # two moments per parameter are on the host
    check_state_fits(
        dataclasses.replace(config, mesh=MeshConfig(offload="idle")),
        make_networks(),
        MESH,
        _chip(1.0),
    )


def test_axes_that_the_mesh_does_not_divide_are_named():
    networks = make_networks()
    assert replicated_axes(networks, MeshConfig()) == []
    sizes = networks.actor.config
    model = 2 * sizes.num_heads  # divides neither kind of heads
    first, *_ = replicated_axes(networks, MeshConfig(model=model))
    assert first.startswith(f"config.mesh.model = {model} does not divide")
    assert f"the {sizes.num_heads} query heads and the {sizes.num_kv_heads} key heads" in first
    assert "of the actor: these are replicated" in first
    split = MeshConfig(model=1, sampling_model=4)
    (decoding,) = replicated_axes(networks, split)
    sentence = "config.mesh.sampling_model = 4 does not divide the 2 key heads and the 61 tokens"
    assert decoding.startswith(sentence)


def test_a_mesh_of_a_phase_must_divide_the_query_heads():
    networks = make_networks()
    check_mesh_divides_heads(networks, MeshConfig(model=8, sampling_model=4, critic_model=2))
    for mesh, field, name in (
        (MeshConfig(sampling_model=8), "sampling_model", "actor"),
        (MeshConfig(critic_model=8), "critic_model", "critics"),
    ):
        sentence = f"mesh.{field} is 8, which does not divide the 4 query heads of the {name}; .* 4"
        with pytest.raises(ConfigError, match=sentence):
            check_mesh_divides_heads(networks, mesh)
