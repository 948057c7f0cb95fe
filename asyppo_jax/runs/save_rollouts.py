"""Rollouts saved during training: what the step makes of each token of a few prompts' answers.

The experience is computed again from the state before the step, by the functions of the step, so
the files cost nothing in other steps. Both masks rank the tokens of the full batch, so the full
experience is computed, and then a few sequences are kept.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array

from asyppo_jax.algorithm.batching.rows import Rows, sequence_segments
from asyppo_jax.algorithm.forward import completion_log_probs, per_sequence, plain_batching
from asyppo_jax.algorithm.state import state_shardings
from asyppo_jax.algorithm.train_step import score_rollout
from asyppo_jax.config import Config, ConfigError
from asyppo_jax.models.actor_critic import Networks, in_compute_dtype
from asyppo_jax.runs.rollout_files import SavedAnswer, token_texts, write_rollout_file
from asyppo_jax.runtime.multi_host import is_first
from asyppo_jax.runtime.phase_meshes import critics_mesh, jit_for_first_process
from asyppo_jax.sampling.sampler import Sampler
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.types import Experience, Params, Rollout, TrainState


def make_rollout_saver(
    workdir: epath.PathLike, networks: Networks, sampler: Sampler, config: Config, mesh: Mesh
) -> Callable[[TrainState, Rollout, Sequence[Prompt]], None]:
    """A function that saves the scored rollout of the coming step, if that step is due.

    Every `config.log.rollouts_every` steps the first process writes the answers to the first
    `config.log.rollout_prompts` prompts into `workdir/rollouts/step_00000010.jsonl`, see
    `rollout_files`. All processes must call the function, with the state before the step. Values
    and what is made of them are of that state, with `value_timing = "after_update"` as well.

    Raises:
        ConfigError: more prompts than a step has, or none.
    """
    every, prompts_kept = config.log.rollouts_every, config.log.rollout_prompts
    if every and not 1 <= prompts_kept <= config.sampling.num_prompts:
        raise ConfigError(
            f"config.log.rollout_prompts is {prompts_kept}; choose 1 to "
            f"config.sampling.num_prompts = {config.sampling.num_prompts}, or set "
            "config.log.rollouts_every to 0 to save none"
        )
    num_rows = prompts_kept * config.sampling.group_size
    on_device = state_shardings(config, networks, mesh).critic_params if every else None

    @partial(jit_for_first_process, critics_mesh(config.mesh, mesh))
    def experience_rows(critic_params, key, step, rollout):
        experience, _ = score_rollout(
            critic_params, key, step, rollout, networks=networks, config=config
        )
        return first_rows(experience, num_rows)

    @partial(jit_for_first_process, mesh)
    def actor_rows(params, rollout):
        return log_probs_and_entropy_of(params, rollout, networks, config)

    def save(state: TrainState, rollout: Rollout, prompts: Sequence[Prompt]) -> None:
        step = int(state.step) + 1
        if not every or step % every:
            return
        critic_params = jax.device_put(state.critic_params, on_device)  # they may be offloaded
        experience = experience_rows(critic_params, state.key, state.step, rollout)
        arrays = experience, *actor_rows(state.actor_params, experience.rollout)
        if is_first():
            experience, log_probs, entropy = jax.device_get(arrays)
            answers = saved_answers(step, experience, log_probs, entropy, prompts, sampler)
            write_rollout_file(epath.Path(workdir) / "rollouts" / f"step_{step:08}.jsonl", answers)

    return save


def first_rows(experience: Experience, num_rows: int) -> Experience:
    """The experience of the first rows only."""
    by_critic = {
        "values": experience.values[:, :num_rows],
        "critic_shards": experience.critic_shards[:, :num_rows],
    }
    by_row = experience.replace(values=None, critic_shards=None)
    return jax.tree.map(lambda x: x[:num_rows], by_row).replace(**by_critic)


def log_probs_and_entropy_of(
    params: Params, rollout: Rollout, networks: Networks, config: Config
) -> tuple[Array, Array]:
    """The learner's log π(token) and entropy of every completion token, both [B, C] (nats).

    A microbatch at a time, see `plain_batching`.
    """
    rows = Rows(rollout.tokens, sequence_segments(rollout), rollout.completion_mask)
    batching = plain_batching(rows.tokens.shape[0], config)
    params = in_compute_dtype(params, networks.actor.dtype)

    def both(rows):
        return jnp.stack(completion_log_probs(params, rows, networks, batching), axis=-1)

    stacked = per_sequence(both, rows, batching, config.sampling.group_size)
    return stacked[..., 0], stacked[..., 1]


def saved_answers(
    step: int,
    experience: Experience,
    log_probs: Array | np.ndarray,
    entropy: Array | np.ndarray,
    prompts: Sequence[Prompt],
    sampler: Sampler,
) -> list[SavedAnswer]:
    """The rows of an experience (on the host) as answers; `prompts` are those of the step."""
    answers = []
    columns = log_probs, entropy, experience.values, experience.value_std
    for fields in answer_fields(experience.rollout, *columns, prompts, sampler):
        row, n = len(answers), len(fields["tokens"])
        critics = np.flatnonzero(experience.critic_shards[:, row])
        answers.append(
            SavedAnswer(
                step=step,
                critic=int(critics[0]) if critics.size else None,
                advantages=experience.advantages[row, :n].tolist(),
                returns=experience.returns[row, :n].tolist(),
                advantage_mask=experience.advantage_mask[row, :n].tolist(),
                entropy_mask=experience.entropy_mask[row, :n].tolist(),
                **fields,
            )
        )
    return answers


def answer_fields(
    rollout: Rollout,
    log_probs: Array | np.ndarray,
    entropy: Array | np.ndarray,
    values: Array | np.ndarray,
    value_std: Array | np.ndarray,
    prompts: Sequence[Prompt],
    sampler: Sampler,
) -> Iterator[dict[str, Any]]:
    """The fields of `SavedAnswer` that a training answer and a held-out one share, per row.

    All arrays are on the host.
    """
    tokenizer, group = sampler.tokenizer, sampler.options.group_size
    lengths = np.sum(rollout.completion_mask, axis=1)
    tokens = rollout.tokens[:, -rollout.completion_mask.shape[1] :]
    ended = sampler.has_ended(np.asarray(tokens), lengths)
    for row, n in enumerate(lengths):
        prompt, completion = prompts[row // group], tokens[row, :n].tolist()
        yield {
            "group": row // group,
            "problem": prompt.record.problem,
            "prompt": str(tokenizer.decode(prompt.tokens, skip_special_tokens=True)),
            "reference": prompt.record.answer,
            "reward": float(rollout.rewards[row]) if rollout.reward_valid[row] else None,
            "truncated": not ended[row],
            "tokens": completion,
            "token_texts": token_texts(tokenizer, completion),
            "old_log_probs": rollout.log_probs[row, :n].tolist(),
            "log_probs": log_probs[row, :n].tolist(),
            "entropy": entropy[row, :n].tolist(),
            "values": values[:, row, :n].tolist(),
            "value_std": value_std[row, :n].tolist(),
        }
