"""Inputs of the timed phases: prompts and a scored rollout from a seed, parameters, the state."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from asyppo_jax.algorithm.experience import make_experience
from asyppo_jax.algorithm.state import create_train_state
from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks, init_actor, init_critics
from asyppo_jax.models.pretrained import (
    critic_source,
    load_actor_params,
    load_critic_params,
    load_networks,
)
from asyppo_jax.types import Experience, Params, PromptBatch, Rollout, TrainState
from experiments.benchmark.setting import Setting, is_shape_alone, make_config

PAD = 0  # not used in prompts and completions, so that peers can recognise padding by the token


class Inputs(NamedTuple):
    """The inputs of one measurement."""

    config: Config
    networks: Networks
    prompts: PromptBatch
    rollout: Rollout


def make_inputs(setting: Setting) -> Inputs:
    """The networks of the setting's models; random tokens, rewards and old log-probs.

    The log-probs are close to those of an untrained model, log(1/V).
    """
    config = make_config(setting)
    networks = load_networks(config)
    rng = np.random.default_rng(0)
    vocabulary, batch = networks.actor.config.vocab_size, setting.sequences
    prompts = rng.integers(1, vocabulary, (batch // setting.group_size, setting.prompt))
    mask = np.arange(setting.completion)[None] < np.asarray(setting.lengths)[:, None]
    completions = rng.integers(1, vocabulary, mask.shape) * mask
    repeated_prompts = np.repeat(prompts, setting.group_size, axis=0)
    rollout = Rollout(
        tokens=jnp.asarray(np.concatenate([repeated_prompts, completions], axis=1), jnp.int32),
        prompt_mask=jnp.ones((batch, setting.prompt), bool),
        completion_mask=jnp.asarray(mask),
        log_probs=jnp.asarray(rng.normal(-np.log(vocabulary), 0.1, mask.shape) * mask, jnp.float32),
        rewards=jnp.asarray(rng.integers(0, 2, batch), jnp.float32),
        reward_valid=jnp.ones(batch, bool),
    )
    batch_of_prompts = PromptBatch(
        tokens=jnp.asarray(prompts, jnp.int32), mask=jnp.ones(prompts.shape, bool)
    )
    return Inputs(config, networks, batch_of_prompts, rollout)


def first_state(inputs: Inputs) -> TrainState:
    """The train state before the first step: parameters and optimizer moments."""
    create = partial(create_train_state, inputs.config, inputs.networks)
    make = jax.jit(lambda a, c: create(actor_params=a, critic_params=c))
    return make(actor_params(inputs), critic_params(inputs))


def actor_params(inputs: Inputs) -> Params:
    """The actor's parameters from its directory, or random ones if there is only a config.json."""
    if not is_shape_alone(inputs.config.actor.path):
        return load_actor_params(inputs.config, inputs.networks)
    return _random_params(partial(init_actor, inputs.networks.actor), 0)


def critic_params(inputs: Inputs) -> Params:
    """The stack of all critics' parameters, loaded or random like the actor's."""
    critic, count = inputs.networks.critic, inputs.config.algorithm.num_critics
    assert critic is not None, "a benchmark has at least one critic"
    if not is_shape_alone(critic_source(inputs.config).path):
        return load_critic_params(inputs.config, inputs.networks)
    return _random_params(lambda key: init_critics(critic, key, count), 1)


def _random_params(init: Callable[[jax.Array], Params], seed: int) -> Params:
    return jax.jit(lambda key: meta.unbox(init(key)))(jax.random.key(seed))


def drawn_experience(inputs: Inputs) -> Experience:
    """The experience of the rollout with random values."""
    shape = (inputs.config.algorithm.num_critics, *inputs.rollout.completion_mask.shape)
    values = 0.1 * jax.random.normal(jax.random.key(1), shape)
    make = partial(
        make_experience,
        group_size=inputs.config.sampling.group_size,
        config=inputs.config.algorithm,
    )
    return jax.jit(make)(inputs.rollout, values, jax.random.key(2))
