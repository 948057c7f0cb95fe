"""What is measured: how many sequences, how long each, on which models, cut up how."""

import json
from dataclasses import dataclass

import numpy as np

from asyppo_jax.config import Config, ConfigError, default_config, from_config_dict

MEDIAN_LENGTH, SPREAD = 40, 1.0  # of ragged lengths: a lognormal's median, and its σ


@dataclass(frozen=True)
class Setting:
    """One measurement; `lengths` holds every row's completion tokens."""

    model: str  # a directory; or a config.json alone, whose weights are then drawn
    critic: str  # empty: the critics are as large as the actor
    num_critics: int
    group_size: int
    prompt: int
    completion: int  # the longest length allowed
    lengths: tuple[int, ...]
    microbatch: int
    packing: bool
    rows_per_prompt: int
    peer_microbatch: int
    slots: int  # of sampling; 0: as many as sequences
    dtype: str = "float32"  # that both networks compute in
    remat: str = "none"
    unroll: int = 1  # layers in one turn of the loop over them; 0: all

    @property
    def sequences(self) -> int:
        return len(self.lengths)

    @property
    def real_tokens(self) -> int:
        """Tokens of prompts and completions, each response with its own prompt."""
        return self.sequences * self.prompt + sum(self.lengths)


def is_shape_alone(path: str) -> bool:
    """Whether a model is a config.json without weights, which are then drawn."""
    return path.endswith(".json")


def rows_at_once(setting: Setting) -> int:
    """The rows of one forward pass of an update."""
    return setting.microbatch // setting.rows_per_prompt


def ragged_lengths(seed: int, count: int, cap: int) -> tuple[int, ...]:
    """Lognormal lengths (median 40, σ 1), at least 1 and at most `cap`: as answers come."""
    drawn = np.random.default_rng(seed).lognormal(np.log(MEDIAN_LENGTH), SPREAD, count)
    return tuple(int(n) for n in np.clip(np.round(drawn), 1, cap))


def read_lengths(file: str, count: int, cap: int) -> tuple[int, ...]:
    """The lengths in a file: a JSON list of `count` whole numbers from 1 to `cap`.

    Raises:
        ConfigError: in words, for anything else.
    """
    try:
        with open(file) as opened:
            lengths = json.load(opened)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"--lengths={file} cannot be read as JSON: {error}") from error
    if not isinstance(lengths, list) or len(lengths) != count:
        raise ConfigError(
            f"--lengths={file} must hold a list of {count} numbers, one for each of --sequences"
        )
    for n in lengths:
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= cap:
            raise ConfigError(
                f"--lengths={file} holds {n!r}; a length is a whole number from 1 to "
                f"--completion={cap}"
            )
    return tuple(lengths)


def make_config(setting: Setting) -> Config:
    """One epoch, one gradient a network: PPO with one critic, AsyPPO with more.

    With one critic there is no disagreement, so the masks are off.
    """
    values = default_config()
    values.actor.path, values.critic.path = setting.model, setting.critic
    for network in (values.actor, values.critic):
        network.remat, network.dtype, network.unroll = setting.remat, setting.dtype, setting.unroll
    values.prompt.max_length = setting.prompt
    sampling, batching, algorithm = values.sampling, values.batching, values.algorithm
    sampling.num_prompts = setting.sequences // setting.group_size
    sampling.group_size = setting.group_size
    sampling.max_completion_length = setting.completion
    sampling.slots = setting.slots
    sampling.temperature = sampling.top_p = 1.0
    algorithm.num_critics = setting.num_critics
    algorithm.actor_epochs = 1
    algorithm.critic_warmup_steps = 0
    if setting.num_critics < 2:
        algorithm.advantage_mask_fraction = algorithm.entropy_mask_fraction = 0.0
    batching.actor_minibatch_size = batching.critic_minibatch_size = setting.sequences
    batching.microbatch_size = setting.microbatch
    batching.packing = setting.packing
    batching.rows_per_prompt = setting.rows_per_prompt
    batching.logits_chunk = setting.completion
    values.mesh.zero_stage = 1  # several devices exchange gradients once per minibatch
    return from_config_dict(values)
