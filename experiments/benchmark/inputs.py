"""What every phase starts from: prompts and a scored rollout from a seed, the networks' state."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asyppo_jax.config import Config
from asyppo_jax.experience import make_experience
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.models.pretrained import load_actor_params, load_critic_params, load_networks
from asyppo_jax.train_step import create_train_state
from asyppo_jax.types import Experience, PromptBatch, Rollout, TrainState
from experiments.benchmark.setting import Setting, make_config

PAD = 0  # no prompt or completion holds it, so that peers may tell padding by its token


class Inputs(NamedTuple):
    """Of one measurement."""

    config: Config
    networks: Networks
    state: TrainState
    prompts: PromptBatch
    rollout: Rollout


def make_inputs(setting: Setting) -> Inputs:
    """The models from their directories; tokens, rewards and old log-probs at random.

    The log-probs are near those of a model that knows nothing, log(1/V).
    """
    config = make_config(setting)
    networks = load_networks(config)
    create = partial(create_train_state, config, networks)
    actor = load_actor_params(config, networks)
    critics = load_critic_params(config, networks)
    state = jax.jit(lambda a, c: create(actor_params=a, critic_params=c))(actor, critics)
    rng = np.random.default_rng(0)
    vocabulary, batch = networks.actor.config.vocab_size, setting.sequences
    prompts = rng.integers(1, vocabulary, (batch // setting.group_size, setting.prompt))
    mask = np.arange(setting.completion)[None] < np.asarray(setting.lengths)[:, None]
    completions = rng.integers(1, vocabulary, mask.shape) * mask
    of_rows = np.repeat(prompts, setting.group_size, axis=0)
    rollout = Rollout(
        tokens=jnp.asarray(np.concatenate([of_rows, completions], axis=1), jnp.int32),
        prompt_mask=jnp.ones((batch, setting.prompt), bool),
        completion_mask=jnp.asarray(mask),
        log_probs=jnp.asarray(rng.normal(-np.log(vocabulary), 0.1, mask.shape) * mask, jnp.float32),
        rewards=jnp.asarray(rng.integers(0, 2, batch), jnp.float32),
        reward_valid=jnp.ones(batch, bool),
    )
    batch_of_prompts = PromptBatch(
        tokens=jnp.asarray(prompts, jnp.int32), mask=jnp.ones(prompts.shape, bool)
    )
    return Inputs(config, networks, state, batch_of_prompts, rollout)


def drawn_experience(inputs: Inputs) -> Experience:
    """The experience of the rollout under values at random."""
    shape = (inputs.config.algorithm.num_critics, *inputs.rollout.completion_mask.shape)
    values = 0.1 * jax.random.normal(jax.random.key(1), shape)
    make = partial(
        make_experience,
        group_size=inputs.config.sampling.group_size,
        config=inputs.config.algorithm,
    )
    return jax.jit(make)(inputs.rollout, values, jax.random.key(2))
