"""One step of AsyPPO as one pure function, and the state that it turns into the next."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from asyppo_jax.algorithm.actor_update import update_actor
from asyppo_jax.algorithm.batching.microbatches import traced_once
from asyppo_jax.algorithm.critic_update import update_critics
from asyppo_jax.algorithm.experience import make_experience, summarize
from asyppo_jax.algorithm.forward import ensemble_values
from asyppo_jax.algorithm.state import state_shardings
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import (
    Networks,
)
from asyppo_jax.runtime.sharding import batch_sharding, replicated
from asyppo_jax.types import Experience, Metrics, Rollout, TrainState

Phase = Literal["sample", "experience", "critics", "actor", "evaluate"]
_PHASES: dict[str, int] = {"sample": 0, "experience": 1, "critics": 2, "actor": 3, "evaluate": 4}


def phase_key(state: TrainState, phase: Phase) -> PRNGKeyArray:
    """The key of one phase of the coming step: no two steps and no two phases share their noise."""
    key = jax.random.wrap_key_data(state.key)
    return jax.random.fold_in(jax.random.fold_in(key, state.step), _PHASES[phase])


def train_step(
    state: TrainState, rollout: Rollout, *, networks: Networks, config: Config
) -> tuple[TrainState, Metrics]:
    """AsyPPO, one iteration after sampling (arXiv 2510.01656): the next state and its metrics."""
    values = critic_values(state, rollout, networks=networks, config=config)
    experience = experience_of(state, rollout, values, config)
    summary = summarize(experience)
    state, critic_metrics = step_critics(state, experience, networks=networks, config=config)
    if config.algorithm.values == "after_update":
        values = critic_values(state, rollout, networks=networks, config=config)
        experience = experience_of(state, rollout, values, config)
    state, actor_metrics = step_actor(state, experience, networks=networks, config=config)
    return state.replace(step=state.step + 1), summary | critic_metrics | actor_metrics


def critic_values(
    state: TrainState, rollout: Rollout, *, networks: Networks, config: Config
) -> Array:
    """V_k(s_t) [K, B, C] under the state's critics; [0, B, C] where there are none."""
    if config.algorithm.num_critics == 0:
        return jnp.zeros((0, *rollout.completion_mask.shape), jnp.float32)
    return ensemble_values(state.critic_params, rollout, networks, config)


def experience_of(state: TrainState, rollout: Rollout, values: Array, config: Config) -> Experience:
    """The experience of the coming step; made again, it has the same shards and tie-breaks."""
    return make_experience(
        rollout,
        values,
        phase_key(state, "experience"),
        group_size=config.sampling.group_size,
        config=config.algorithm,
    )


def step_critics(
    state: TrainState, experience: Experience, *, networks: Networks, config: Config
) -> tuple[TrainState, Metrics]:
    """The critics' update (none: nothing)."""
    if config.algorithm.num_critics == 0:
        return state, {}
    params, opt_state, metrics = update_critics(
        state.critic_params,
        state.critic_opt_state,
        experience,
        phase_key(state, "critics"),
        networks,
        config,
    )
    return state.replace(critic_params=params, critic_opt_state=opt_state), metrics


def warmup_steps(config: Config) -> int:
    """Steps at the start in which only the critics learn."""
    return config.algorithm.critic_warmup_steps if config.algorithm.num_critics else 0


def step_actor(
    state: TrainState, experience: Experience, *, networks: Networks, config: Config
) -> tuple[TrainState, Metrics]:
    """The actor's update; during the critics' warm-up nothing changes and its metrics are NaN."""

    @traced_once
    def update(params, opt_state):
        key = phase_key(state, "actor")
        return update_actor(params, opt_state, experience, key, networks, config)

    def skip(params, opt_state):
        shapes = jax.eval_shape(update, params, opt_state)[2]
        return params, opt_state, {name: jnp.full(x.shape, jnp.nan) for name, x in shapes.items()}

    before = state.actor_params, state.actor_opt_state
    if warmup_steps(config) == 0:
        params, opt_state, metrics = update(*before)
    else:
        is_warmup = state.step < warmup_steps(config)
        params, opt_state, metrics = jax.lax.cond(is_warmup, skip, update, *before)
    return state.replace(actor_params=params, actor_opt_state=opt_state), metrics


def jit_train_step(networks: Networks, config: Config, mesh: Mesh):
    """`train_step` compiled: state donated, state and rollout placed by the rules."""
    shardings = state_shardings(config, networks, mesh)
    return jax.jit(
        partial(train_step, networks=networks, config=config),
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )
