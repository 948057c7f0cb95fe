"""Held-out answers saved at each evaluation, so that two checkpoints can be compared.

Training prompts do not return, but the first held-out prompts are the same in every evaluation.
The evaluation samples and scores their answers anyway. Only the critics' values and the learner's
log-probs are computed here, for a few sequences, and without noise: no number of the run changes.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array

from asyppo_jax.algorithm.forward import ensemble_values, plain_batching
from asyppo_jax.algorithm.state import state_shardings
from asyppo_jax.config import Config, ConfigError
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.ops.ensemble import value_mean_and_std
from asyppo_jax.runs.rollout_files import SavedAnswer, write_rollout_file
from asyppo_jax.runs.save_rollouts import answer_fields, log_probs_and_entropy_of
from asyppo_jax.runtime.multi_host import is_first
from asyppo_jax.runtime.phase_meshes import critics_mesh, jit_for_first_process, sampling_mesh
from asyppo_jax.runtime.sharding import constrain_batch
from asyppo_jax.sampling.rollouts import with_rewards
from asyppo_jax.sampling.sampler import Sampler
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.types import Params, Rollout, TrainState


def make_heldout_saver(
    workdir: epath.PathLike,
    networks: Networks,
    sampler: Sampler,
    config: Config,
    mesh: Mesh,
    prompts: Sequence[Prompt],
) -> Callable[[TrainState, Rollout, np.ndarray, np.ndarray], None] | None:
    """A function that saves the first held-out answers of an evaluation; None if none are wanted.

    It takes the evaluated state, and what `evaluate` gives to `save_first_batch`. The first process
    writes the answers to the first `config.log.heldout_prompts` of `prompts` into
    `workdir/rollouts/heldout_00000010.jsonl`, where 10 is the number of finished steps. All
    processes must call the function.

    Raises:
        ConfigError: more prompts than there are, or than one batch of an evaluation has.
    """
    num_prompts, batch_size = config.log.heldout_prompts, config.evaluation.batch_size
    if num_prompts == 0:
        return None
    if not 0 < num_prompts <= min(len(prompts), batch_size):
        raise ConfigError(
            f"config.log.heldout_prompts is {num_prompts}; choose at most "
            f"{min(len(prompts), batch_size)}, because there are {len(prompts)} held-out problems "
            f"and config.evaluation.batch_size is {batch_size}, or 0 to save none"
        )
    num_answers = num_prompts * config.evaluation.num_samples
    # Complete groups on every shard; the batch is a multiple of both, too.
    unit = math.lcm(mesh.shape["data"], config.evaluation.num_samples)
    num_rows = -(-num_answers // unit) * unit
    on_device = state_shardings(config, networks, mesh).critic_params

    @partial(jit_for_first_process, critics_mesh(config.mesh, mesh))
    def values_and_std(critic_params, rollout):
        return values_of(critic_params, first_sequences(rollout, num_rows), networks, config)

    @partial(jit_for_first_process, mesh)
    def actor_rows(params, rollout):
        rollout = first_sequences(rollout, num_rows)
        return rollout, *log_probs_and_entropy_of(params, rollout, networks, config)

    def save(state: TrainState, rollout: Rollout, rewards: np.ndarray, valid: np.ndarray) -> None:
        critic_params = jax.device_put(state.critic_params, on_device)  # they may be offloaded
        rollout = _with_scores(rollout, rewards, valid, sampling_mesh(config.mesh, mesh))
        arrays = (
            *actor_rows(state.actor_params, rollout),
            *values_and_std(critic_params, rollout),
        )
        if not is_first():
            return
        rollout, log_probs, entropy, values, value_std = jax.device_get(arrays)
        rollout = jax.tree.map(lambda x: x[:num_answers], rollout)
        scored = rollout.replace(rewards=rewards[:num_answers], reward_valid=valid[:num_answers])
        step = int(state.step)
        answers = [
            SavedAnswer(
                step=step,
                critic=None,
                advantages=[],
                returns=[],
                advantage_mask=[],
                entropy_mask=[],
                held_out=True,
                **fields,
            )
            for fields in answer_fields(
                scored, log_probs, entropy, values, value_std, prompts, sampler
            )
        ]
        write_rollout_file(epath.Path(workdir) / "rollouts" / f"heldout_{step:08}.jsonl", answers)

    return save


def _with_scores(rollout: Rollout, rewards: np.ndarray, valid: np.ndarray, mesh: Mesh) -> Rollout:
    """The rollout of the first batch with the rewards of all answers, of which it may have more.

    Values around an anchor need the rewards of the group. A batch that was filled up has answers
    without a reward.
    """
    size = len(rollout.rewards)
    first, first_valid = (np.pad(x, (0, max(0, size - len(x))))[:size] for x in (rewards, valid))
    return with_rewards(rollout, first, first_valid, mesh)


def first_sequences(rollout: Rollout, count: int) -> Rollout:
    """The first `count` sequences, a multiple of the data axis, sharded over it."""
    return constrain_batch(jax.tree.map(lambda x: x[:count], rollout))


def values_of(
    critic_params: Params, rollout: Rollout, networks: Networks, config: Config
) -> tuple[Array, Array]:
    """V_k(s_t) [K, B, C] and its standard deviation σ [B, C]; without critics σ is 0."""
    shape = rollout.completion_mask.shape
    if config.algorithm.num_critics == 0:
        return jnp.zeros((0, *shape), jnp.float32), jnp.zeros(shape, jnp.float32)
    config = dataclasses.replace(
        config,
        batching=plain_batching(shape[0], config),
        sampling=dataclasses.replace(config.sampling, group_size=config.evaluation.num_samples),
    )
    values = ensemble_values(critic_params, rollout, networks, config)
    return values, value_mean_and_std(values)[1]
