"""An experience of a tiny run, made once per test file."""

import jax
import pytest

from asyppo_jax.algorithm.train_step import critic_values, experience_of
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
        values = critic_values(state, rollout, networks=networks, config=config)
        return experience_of(state, rollout, values, config)

    return config, networks, state, experience()
