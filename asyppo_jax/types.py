"""The three pytrees that flow through the program: `Rollout`, `Experience`, `TrainState`.

Letters (used in every shape of this project): B sequences, N prompts, G responses per prompt
(B = N*G, the responses of a prompt are neighbours), K critics, P prompt positions, C completion
positions, T = P + C, R positions of the reference answer that only the critics read.

Masks, all bool, and who makes them:

| mask | true on | made by |
|---|---|---|
| `prompt_mask` [B, P] | the prompt's tokens | `tasks.prompts.pad_prompts` |
| `critic_prompt_mask` [B, R + P] | the critics' own prompts | `tasks.prompts.pad_critic_prompts` |
| `completion_mask` [B, C] | the completion, with its end-of-sequence token | `sampling.engine` |
| `reward_valid` [B] | answers that could be scored | `tasks.rewards.pool.RewardPool.score` |
| `loss_mask` [B, C] | the completions of those answers | `algorithm.experience` |
| `actor_mask` [B, C] | those that the actor's loss counts | `algorithm.experience` |
| `advantage_mask` [B, C] | all but the tokens of lowest σ | `ops.ensemble.disagreement_masks` |
| `entropy_mask` [B, C] | all but the tokens of highest σ | `ops.ensemble.disagreement_masks` |
| `critic_shards` [K, B] | the answers that critic k learns from | `ops.ensemble.critic_shards` |
"""

from typing import Any

import jax
from flax import struct
from jaxtyping import Array

Params = Any  # a nested dict of arrays; leaf names and shapes are those of `asyppo_jax.models`


class PromptBatch(struct.PyTreeNode):
    """N prompts, padded on the left so that every completion starts at position P."""

    tokens: jax.Array  # [N, P] int32
    mask: jax.Array  # [N, P] bool, true on real prompt tokens


class Rollout(struct.PyTreeNode):
    """The responses of the current actor, with their log-probs and rewards.

    `completion_mask` is true up to and including the end-of-sequence token. `log_probs` are of the
    plain policy (temperature 1, no truncation), because PPO's ratio compares plain policies. A
    sequence whose `reward_valid` is false takes no part in any loss or rank, nor in statistics of
    rewards, values and advantages; it counts in those of lengths.
    """

    tokens: jax.Array  # [B, T] int32, prompt (left-padded) then completion (right-padded)
    prompt_mask: jax.Array  # [B, P] bool
    completion_mask: jax.Array  # [B, C] bool
    log_probs: jax.Array  # [B, C] float32
    rewards: jax.Array  # [B] float32 in [0, 1]
    reward_valid: jax.Array  # [B] bool
    # [B] bool, the answer reached the maximum length without a stop; None: not recorded
    truncated: jax.Array | None = None
    # [B, C] float32, under the distribution that was sampled from (after temperature and
    # truncation). Only with `DecodingOptions.sampled_log_probs`; no loss reads it.
    sampled_log_probs: jax.Array | None = None
    # [B, C] float32, H(π(·|s_t)) of the plain policy over the full vocabulary (nats). Only with
    # `DecodingOptions.entropy`, which `config.algorithm.mask_by` = "entropy" sets.
    entropy: jax.Array | None = None
    # Only with `config.value.reference_answer`, and read by the critics alone, in place of the
    # prompt: the reference answer and the prompt, left-padded so that their tokens are contiguous.
    critic_prompt: jax.Array | None = None  # [B, R + P] int32
    critic_prompt_mask: jax.Array | None = None  # [B, R + P] bool


class Experience(struct.PyTreeNode):
    """A rollout with everything that the two updates need; constant during the updates."""

    rollout: Rollout
    # [K, B, C] float32, V_k(s_t), computed before or after the critics' update (`value_timing`)
    values: jax.Array
    value_std: jax.Array  # [B, C] float32, the critics' disagreement
    advantages: jax.Array  # [B, C] float32
    returns: jax.Array  # [B, C] float32
    loss_mask: jax.Array  # [B, C] bool, completion_mask of the sequences with a valid reward
    actor_mask: jax.Array  # [B, C] bool, loss_mask without the groups that the actor's loss drops
    advantage_mask: jax.Array  # [B, C] bool, false = masked out of the policy loss
    entropy_mask: jax.Array  # [B, C] bool, false = masked out of the entropy bonus
    critic_shards: jax.Array  # [K, B] bool, which responses each critic learns from
    # [B, C] float32, log π_ref(token); only in the actor's update, and only with `kl_coef` > 0
    reference_log_probs: jax.Array | None = None


class TrainState(struct.PyTreeNode):
    """Everything that a checkpoint needs to resume exactly: arrays only, no functions."""

    step: jax.Array  # scalar int32, the number of finished steps
    key: jax.Array  # [2] uint32, the run's key data; constant, `phase_key` folds `step` in
    actor_params: Params
    actor_opt_state: Any
    critic_params: Params  # stacked: every leaf has a leading axis K; an empty dict when K = 0
    critic_opt_state: Any


Metrics = dict[str, Array]
