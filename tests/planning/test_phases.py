"""The phases that are planned are the phases that run."""

import jax
import numpy as np

from asyppo_jax.planning.phases import (
    bytes_per_chip,
    phase_programs,
    phases_of,
    rollout_shapes,
)
from asyppo_jax.runtime.sharding import make_mesh
from tests.tiny import (
    assert_trees_close,
    jit_step,
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


def test_the_shapes_are_those_of_a_rollout():
    config = make_config()
    shapes = rollout_shapes(config, make_mesh(config.mesh))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype), make_rollout(make_config())
    )


def test_grpo_has_no_phase_of_critics():
    config, networks = make_config(0), make_networks(0)
    programs, _ = phase_programs(config, networks, make_mesh(config.mesh))
    assert list(programs) == ["prefill", "decode", "actor", "step"]
    assert phases_of(config) == tuple(programs)
    assert bytes_per_chip(programs["actor"].resident) == 0
