"""The setting of a measurement: models, sequences and their lengths, and how they are batched."""

import json
from dataclasses import dataclass

import numpy as np

from asyppo_jax.config import Config, ConfigError, default_config, from_config_dict

MEDIAN_LENGTH, SPREAD = 40, 1.0  # random lengths are lognormal with this median and this σ


@dataclass(frozen=True)
class Setting:
    """The setting of one measurement."""

    model: str  # a model directory, or a config.json for random weights
    critic: str  # empty: the critics are as large as the actor
    num_critics: int
    group_size: int
    prompt: int  # tokens
    completion: int  # maximum tokens
    lengths: tuple[int, ...]  # completion tokens of every sequence
    microbatch: int
    packing: bool
    rows_per_prompt: int
    peer_microbatch: int
    slots: int  # sequences decoded at the same time; 0: all
    dtype: str = "float32"  # compute dtype of both networks
    remat: str = "none"
    unroll: int = 1  # layers unrolled per scan iteration; 0: all

    @property
    def sequences(self) -> int:
        return len(self.lengths)

    @property
    def real_tokens(self) -> int:
        """Tokens of prompts and completions; a prompt counts once per response."""
        return self.sequences * self.prompt + sum(self.lengths)


def is_shape_alone(path: str) -> bool:
    """Whether a model is only a config.json, so that its weights are random."""
    return path.endswith(".json")


def rows_at_once(setting: Setting) -> int:
    """The rows of one forward pass of an update."""
    return setting.microbatch // setting.rows_per_prompt


def ragged_lengths(seed: int, count: int, cap: int) -> tuple[int, ...]:
    """Random lengths like those of real answers: lognormal (median 40, σ 1), from 1 to `cap`."""
    drawn = np.random.default_rng(seed).lognormal(np.log(MEDIAN_LENGTH), SPREAD, count)
    return tuple(int(n) for n in np.clip(np.round(drawn), 1, cap))


def read_lengths(file: str, count: int, cap: int) -> tuple[int, ...]:
    """The lengths in a file: a JSON list of `count` integers from 1 to `cap`.

    Raises:
        ConfigError: the file has anything else.
    """
    try:
        with open(file) as opened:
            lengths = json.load(opened)
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"--lengths={file} cannot be read as JSON: {error}") from error
    if not isinstance(lengths, list) or len(lengths) != count:
        raise ConfigError(
            f"--lengths={file} must be a list of {count} numbers, one for each of --sequences"
        )
    for n in lengths:
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= cap:
            raise ConfigError(
                f"--lengths={file} has {n!r}; a length must be an integer from 1 to "
                f"--completion={cap}"
            )
    return tuple(lengths)


def make_config(setting: Setting) -> Config:
    """The config of a measurement: one epoch with one gradient step per network.

    With one critic it is PPO, and the masks are off because one critic cannot disagree. With more
    critics it is AsyPPO.
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
    fraction = 0.2 if setting.num_critics > 1 else 0.0  # the paper's, or no masks
    algorithm.advantage_mask_fraction = algorithm.entropy_mask_fraction = fraction
    batching.actor_minibatch_size = batching.critic_minibatch_size = setting.sequences
    batching.microbatch_size = setting.microbatch
    batching.packing = setting.packing
    batching.rows_per_prompt = setting.rows_per_prompt
    batching.logits_chunk = setting.completion
    values.mesh.zero_stage = 1  # several devices exchange gradients once per minibatch
    return from_config_dict(values)
