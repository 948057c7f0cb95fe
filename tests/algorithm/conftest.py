"""An experience of a tiny run, made once per test file."""

import jax
import pytest

from asyppo_jax.algorithm.train_step import score_rollout
from tests.tiny import (
    make_config,
    make_networks,
    make_rollout,
    make_state,
    with_one_prompt_a_group,
)


@pytest.fixture(scope="module")
def setting():
    config, networks = make_config(), make_networks()
    state = make_state(config, networks)
    rollout = with_one_prompt_a_group(make_rollout(config), config)

    @jax.jit
    def experience():
        key_and_step = state.key, state.step
        options = {"networks": networks, "config": config}
        return score_rollout(state.critic_params, *key_and_step, rollout, **options)[0]

    return config, networks, state, experience()
