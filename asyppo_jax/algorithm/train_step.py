"""One step of AsyPPO as one pure function, and the phases that it is made of.

A phase takes only the fields of the `TrainState` that it reads, so that `offload` can run the same
phases as separate programs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from asyppo_jax.algorithm.actor_update import update_actor
from asyppo_jax.algorithm.advantages import find_estimator
from asyppo_jax.algorithm.batching.microbatches import traced_once
from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.critic_update import update_critics
from asyppo_jax.algorithm.experience import make_experience, summarize
from asyppo_jax.algorithm.forward import ensemble_values, frozen_log_probs
from asyppo_jax.algorithm.policy_losses import PolicyLoss, resolve_loss
from asyppo_jax.config import Config, ConfigError
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.types import Experience, Metrics, Params, Rollout, TrainState

KeyPurpose = Literal["sample", "experience", "critics", "actor", "evaluate", "resample"]
_PURPOSE_INDEX: dict[KeyPurpose, int] = {
    "sample": 0,
    "experience": 1,
    "critics": 2,
    "actor": 3,
    "evaluate": 4,
    "resample": 5,
}


def phase_key(key: Array, step: Array, purpose: KeyPurpose) -> PRNGKeyArray:
    """The random key for one purpose in the coming step, from a state's `key` and `step`.

    Each purpose in each step has a different key.
    """
    run_key = jax.random.wrap_key_data(key)
    return jax.random.fold_in(jax.random.fold_in(run_key, step), _PURPOSE_INDEX[purpose])


class Phases(NamedTuple):
    """The phases of a step after sampling; `key` and `step` are those of the state."""

    # values, and the experience that contains them:
    # (critic params, key, step, rollout) -> experience, metrics
    values: Callable[..., tuple[Experience, Metrics]]
    # (params, optimizer state, key, step, experience) -> params, optimizer state, metrics
    critics: Callable[..., tuple[Params, Any, Metrics]]
    # log π_ref(token) [B, C], only with `kl_coef` > 0: (reference params, experience) -> log-probs
    reference: Callable[[Params, Experience], Array]
    actor: Callable[..., tuple[Params, Any, Metrics]]
    next_step: Callable[[Array], Array]


def train_step(
    state: TrainState,
    rollout: Rollout,
    *,
    networks: Networks,
    config: Config,
    policy_loss: PolicyLoss | None = None,
    reference_params: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """The next state and its metrics: one AsyPPO step after sampling (arXiv 2510.01656).

    `policy_loss` replaces the loss that `config.algorithm.loss` names. `reference_params` are
    parameters of the actor's architecture, used with `config.algorithm.kl_coef` > 0 only.

    Raises:
        ConfigError: `kl_coef` is above 0, and there is no reference; or see `resolve_loss`.
    """
    phases = phase_functions(networks, config, policy_loss)
    return run_phases(state, rollout, reference_params, phases=phases, config=config)


def run_phases(
    state: TrainState,
    rollout: Rollout,
    reference_params: Params | None = None,
    *,
    phases: Phases,
    config: Config,
    place: Callable[..., TrainState] = lambda state, *needed: state,
) -> tuple[TrainState, Metrics]:
    """Runs the phases; `place(state, *fields)` moves the fields of the next phase to the device."""
    if config.algorithm.kl_coef and reference_params is None:
        raise ConfigError(
            f"config.algorithm.kl_coef is {config.algorithm.kl_coef}, which needs a reference; "
            "give the step reference_params, such as the actor's starting parameters"
        )
    key_and_step = state.key, state.step
    state = place(state, "critic_params")
    experience, metrics = phases.values(state.critic_params, *key_and_step, rollout)
    state = place(state, "critic_params", "critic_opt_state")
    params, opt_state, critic_metrics = phases.critics(
        state.critic_params, state.critic_opt_state, *key_and_step, experience
    )
    if config.algorithm.value_timing == "after_update":
        experience, _ = phases.values(params, *key_and_step, rollout)
    state = state.replace(critic_params=params, critic_opt_state=opt_state)
    if config.algorithm.kl_coef:
        state = place(state)
        log_probs = phases.reference(reference_params, experience)
        experience = experience.replace(reference_log_probs=log_probs)
    state = place(state, "actor_params", "actor_opt_state")
    params, opt_state, actor_metrics = phases.actor(
        state.actor_params, state.actor_opt_state, *key_and_step, experience
    )
    state = state.replace(actor_params=params, actor_opt_state=opt_state)
    state = place(state.replace(step=phases.next_step(state.step)), "actor_params")
    return state, metrics | critic_metrics | actor_metrics


def phase_functions(
    networks: Networks, config: Config, policy_loss: PolicyLoss | None = None
) -> Phases:
    """The phases as pure functions of arrays; None: the loss that the config names."""
    static = {"networks": networks, "config": config}
    policy_loss = policy_loss or resolve_loss(config.algorithm)
    find_estimator(config.algorithm)  # a wrong name is refused before anything is loaded
    return Phases(
        values=partial(score_rollout, **static),
        critics=partial(step_critics, **static),
        reference=partial(score_by_reference, **static),
        actor=partial(step_actor, **static, policy_loss=policy_loss),
        next_step=lambda step: step + 1,
    )


def score_rollout(
    critic_params: Params,
    key: Array,
    step: Array,
    rollout: Rollout,
    *,
    networks: Networks,
    config: Config,
) -> tuple[Experience, Metrics]:
    """The experience of the coming step with the values of these critics, and its metrics.

    With `value_timing = "after_update"` it is called twice. The key is the same, so the critics'
    shares are too.
    """
    values = jnp.zeros((0, *rollout.completion_mask.shape), jnp.float32)
    if config.algorithm.num_critics:
        values = ensemble_values(critic_params, rollout, networks, config)
    experience = make_experience(
        rollout,
        values,
        phase_key(key, step, "experience"),
        group_size=config.sampling.group_size,
        config=config.algorithm,
    )
    return experience, summarize(experience, config.sampling.group_size, config.algorithm)


def step_critics(
    params: Params,
    opt_state: Any,
    key: Array,
    step: Array,
    experience: Experience,
    *,
    networks: Networks,
    config: Config,
) -> tuple[Params, Any, Metrics]:
    """The critics' update; without critics, the inputs unchanged and no metrics."""
    if config.algorithm.num_critics == 0:
        return params, opt_state, {}
    update_key, dense = phase_key(key, step, "critics"), step < warmup_steps(config)
    return update_critics(params, opt_state, experience, update_key, networks, config, dense=dense)


def score_by_reference(
    reference_params: Params, experience: Experience, *, networks: Networks, config: Config
) -> Array:
    """log π_ref of the completions' tokens, [B, C] float32; unspecified where `loss_mask` is false.

    Computed once per step, because neither the reference nor the rollout changes in an update.
    """
    rollout = experience.rollout
    rows = Rows(rollout.tokens, sequence_segments(rollout), experience.loss_mask)
    return frozen_log_probs(reference_params, rows, networks, config)


def warmup_steps(config: Config) -> int:
    """Steps at the start that update the critics only."""
    return config.algorithm.critic_warmup_steps if config.algorithm.num_critics else 0


def step_actor(
    params: Params,
    opt_state: Any,
    key: Array,
    step: Array,
    experience: Experience,
    *,
    networks: Networks,
    config: Config,
    policy_loss: PolicyLoss,
) -> tuple[Params, Any, Metrics]:
    """The actor's update; during the critics' warm-up nothing changes and its metrics are NaN."""

    @traced_once
    def update(params, opt_state):
        update_key = phase_key(key, step, "actor")
        return update_actor(
            params, opt_state, experience, update_key, networks, config, policy_loss
        )

    def skip(params, opt_state):
        shapes = jax.eval_shape(update, params, opt_state)[2]
        return params, opt_state, {name: jnp.full(x.shape, jnp.nan) for name, x in shapes.items()}

    if warmup_steps(config) == 0:
        return update(params, opt_state)
    return jax.lax.cond(step < warmup_steps(config), skip, update, params, opt_state)
