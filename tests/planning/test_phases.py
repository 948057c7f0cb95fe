"""The phases that are planned are the phases that run."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asyppo_jax.algorithm.offload import FIELDS
from asyppo_jax.algorithm.train_step import score_rollout
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.planning.flops import phase_costs
from asyppo_jax.planning.phases import (
    bytes_per_chip,
    mesh_of,
    phase_programs,
    phases_of,
    rollout_shapes,
)
from asyppo_jax.runtime.sharding import make_mesh
from tests.simulated import run_module
from tests.tiny import (
    COMPLETION,
    assert_trees_close,
    jit_step,
    make_actor_params,
    make_config,
    make_networks,
    make_rollout,
    make_state,
)


def test_the_phases_one_after_the_other_are_the_train_step():
    config, networks = make_config(), make_networks()
    state, rollout = make_state(config, networks), make_rollout(make_config())
    programs, _ = phase_programs(config, networks, make_mesh(config.mesh))
    rest = state.key, state.step
    run = {name: jax.jit(programs[name].function) for name in ("values", "critics", "actor")}
    experience, _ = run["values"](state.critic_params, *rest, rollout)
    critics = run["critics"](state.critic_params, state.critic_opt_state, *rest, experience)
    actor = run["actor"](state.actor_params, state.actor_opt_state, *rest, experience)
    after, metrics = jit_step(config, networks)(state, rollout)
    assert_trees_close(after.critic_params, critics[0], atol=1e-6)
    assert_trees_close(after.actor_params, actor[0], atol=1e-6)
    np.testing.assert_allclose(metrics["actor/loss"], actor[2]["actor/loss"], rtol=1e-5)


def test_every_part_of_the_state_is_an_argument_or_held():
    config, networks = make_config(), make_networks()
    programs, state = phase_programs(config, networks, make_mesh(config.mesh))
    assert list(programs) == ["prefill", "decode", "values", "critics", "actor", "step"]
    assert phases_of(config) == tuple(programs)
    whole = bytes_per_chip((state.actor_params, state.actor_opt_state)) + bytes_per_chip(
        (state.critic_params, state.critic_opt_state)
    )
    assert programs.pop("step").arguments[0] is state
    for program in programs.values():
        of_state = [x for x in program.arguments if isinstance(x, dict | tuple)]
        assert bytes_per_chip(of_state) + bytes_per_chip(program.resident) == whole


@pytest.mark.parametrize("offload", ["none", "optimizers", "idle"])
def test_the_reference_is_counted_in_every_phase(offload):
    """An argument of its phase, else resident or, with idle networks offloaded, on the host."""
    config = make_config(0, algorithm__kl_coef=0.1, mesh__offload=offload)
    mesh, networks = make_mesh(config.mesh), make_networks(0)
    networks = Networks(networks.actor.clone(dtype=jnp.dtype("bfloat16")), None)
    programs, state = phase_programs(config, networks, mesh)
    step = ["step"] if offload == "none" else []
    assert list(programs) == ["prefill", "decode", "reference", "actor", *step]
    assert phases_of(config) == tuple(programs)
    reference = bytes_per_chip(programs["reference"].arguments[0])
    assert 0.5 < reference / bytes_per_chip(state.actor_params) < 0.51  # norm scales are float32
    without = make_config(0, mesh__offload=offload)
    others, _ = phase_programs(without, networks, mesh)

    def added(name: str, field: str) -> float:
        return bytes_per_chip(getattr(programs[name], field)) - bytes_per_chip(
            getattr(others[name], field)
        )

    for name in ("prefill", "decode", "actor"):
        assert added(name, "resident") == (0 if offload == "idle" else reference)
        assert added(name, "offloaded") == (reference if offload == "idle" else 0)
    scored, plain = (x["actor"].arguments[-1].reference_log_probs for x in (programs, others))
    assert scored.shape == (32, COMPLETION) and plain is None
    if step:
        assert bytes_per_chip(programs["step"].arguments[2]) == reference


@pytest.mark.slow  # the test without one is quick
def test_the_phases_with_a_reference_are_the_train_step():
    config, networks = make_config(0, algorithm__kl_coef=0.5), make_networks(0)
    state, rollout = make_state(config, networks), make_rollout(config)
    programs, _ = phase_programs(config, networks, make_mesh(config.mesh))
    reference = make_actor_params(networks, seed=1)
    values = partial(score_rollout, networks=networks, config=config)
    experience, _ = jax.jit(values)({}, state.key, state.step, rollout)
    log_probs = jax.jit(programs["reference"].function)(reference, experience)
    experience = experience.replace(reference_log_probs=log_probs)
    actor = jax.jit(programs["actor"].function)
    params, _, _ = actor(
        state.actor_params, state.actor_opt_state, state.key, state.step, experience
    )
    after, _ = jit_step(config, networks)(state, rollout, reference_params=reference)
    assert_trees_close(after.actor_params, params, atol=1e-6)


def _with_a_mesh_per_phase() -> dict:
    """What the test below checks, in a process with eight devices; run by `python -m`."""
    config = make_config(
        mesh__model=1, mesh__sampling_model=4, mesh__critic_model=2, sampling__num_prompts=8
    )
    networks, mesh = make_networks(), make_mesh(config.mesh)
    programs, state = phase_programs(config, networks, mesh)
    return {
        "phases": list(programs) == list(phases_of(config)) and list(programs),
        "model": [
            sorted(
                {x.sharding.mesh.shape["model"] for x in jax.tree.leaves(program.arguments)}
                | {mesh_of(name, config, mesh).shape["model"]}
            )
            for name, program in programs.items()
        ],
        "resident": [
            bytes_per_chip((program.arguments[0], program.resident))
            - bytes_per_chip([getattr(state, field) for field in FIELDS])
            for name, program in programs.items()
            if name in ("reshard", "decode")
        ],
        "copy": bytes_per_chip(programs["decode"].arguments[0]),
        "costs": list(phase_costs(config, networks)),
    }


def test_phases_have_their_meshes_and_sampling_a_copy_of_the_actor():
    result = json.loads(run_module("tests.planning.test_phases", devices=8, timeout=120))
    phases = ["reshard", "prefill", "decode", "values", "critics", "actor"]
    assert result["phases"] == phases and result["costs"] == [*phases, "step"]
    assert result["model"] == [[1], [4], [4], [2], [2], [1]]
    assert result["resident"] == [0, result["copy"]] and result["copy"] > 0


def test_the_shapes_are_those_of_a_rollout():
    config = make_config()
    shapes = rollout_shapes(config, make_mesh(config.mesh))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype),
        make_rollout(config).replace(truncated=jnp.zeros(32, bool)),
    )


def test_grpo_has_no_phase_of_critics():
    config, networks = make_config(0), make_networks(0)
    programs, _ = phase_programs(config, networks, make_mesh(config.mesh))
    assert list(programs) == ["prefill", "decode", "actor", "step"]
    assert phases_of(config) == tuple(programs)
    assert bytes_per_chip(programs["actor"].resident) == 0


if __name__ == "__main__":
    print(json.dumps(_with_a_mesh_per_phase()))
