"""The compiled decoding program with its tokenizer: prompts in, a rollout and its texts out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.runtime.multi_host import own_rows, read_rows
from asyppo_jax.runtime.sharding import batch_sharding, put, replicated
from asyppo_jax.sampling import DecodingOptions, holds_stop_string, make_stop_table, sample
from asyppo_jax.tasks.prompts import Prompt, Tokenizer, pad_critic_prompts, pad_prompts
from asyppo_jax.tasks.tokenizers import decode_with_unknown
from asyppo_jax.types import Params, Rollout


@dataclass(frozen=True)
class Sampler:
    """The compiled decoding program for one set of options, with its tokenizer."""

    options: DecodingOptions
    tokenizer: Tokenizer
    max_prompt_length: int
    program: Callable[..., Rollout]
    stop_table: np.ndarray | None = None  # None: no stop strings
    reference_length: int = 0  # R; above 0, rollouts have the critics' own prompts

    def __call__(
        self,
        params: Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        mesh: Mesh,
        first_row: int = 0,
        *,
        limits: np.ndarray | None = None,
    ) -> Rollout:
        """The rollout of these prompts, sharded over `mesh`; its rewards are not set yet.

        `limits` [B] are maximum numbers of tokens per completion; None: the options' for all.
        """
        batch = pad_prompts(prompts, self.max_prompt_length, self.options.pad_id)
        placement = jax.tree.map(lambda _: batch_sharding(mesh), batch)
        inputs: dict[str, Any] = {"first_row": put(np.int32(first_row), replicated(mesh))}
        if limits is not None:
            inputs["limits"] = put(np.asarray(limits, np.int32), batch_sharding(mesh))
        if self.stop_table is not None:
            inputs["stop_table"] = put(self.stop_table, replicated(mesh))
        rollout = self.program(params, put(batch, placement), key, **inputs)
        if self.reference_length == 0:
            return rollout
        return self._with_critic_prompts(rollout, prompts, mesh)

    def _with_critic_prompts(
        self, rollout: Rollout, prompts: Sequence[Prompt], mesh: Mesh
    ) -> Rollout:
        """The rollout with what critics read in place of the prompt; the actor does not read it."""
        length = self.reference_length + self.max_prompt_length
        batch = pad_critic_prompts(prompts, length, self.options.pad_id)
        fields = {"critic_prompt": batch.tokens, "critic_prompt_mask": batch.mask}
        rows = {k: np.repeat(v, self.options.group_size, axis=0) for k, v in fields.items()}
        return rollout.replace(**put(rows, dict.fromkeys(rows, batch_sharding(mesh))))

    def has_ended(self, completions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Which completions end in a stop token or a stop string, not at the greatest length."""
        last = completions[np.arange(len(lengths)), np.maximum(lengths, 1) - 1]
        ended = np.isin(last, self.options.stop_ids)
        if self.stop_table is not None:
            ended |= holds_stop_string(self.stop_table, completions, lengths)
        return ended


class Answers(NamedTuple):
    """This process's sequences of a rollout as text; the G answers to a problem are neighbours."""

    rows: np.ndarray  # [n] their indices in the rollout: all B with one process
    prompts: list[str]
    problems: list[str]
    completions: list[str]
    answers: list[str]  # the references
    records: list[Mapping[str, Any]]  # the columns of the problems' data
    truncated: np.ndarray  # [n] bool, no stop within the greatest length
    lengths: np.ndarray  # [n] tokens, stop token included


def make_sampler(
    networks: Networks,
    tokenizer: Tokenizer,
    options: DecodingOptions,
    mesh: Mesh,
    *,
    max_prompt_length: int,
    stop_strings: Sequence[str] = (),
    reference_length: int = 0,
) -> Sampler:
    """A sampler of rollouts that are sharded over the mesh's `data` axis.

    Two samplers of the same networks, options and mesh share one program in a process.
    """
    compiled = _compiled(networks, options, mesh)
    rows = networks.actor.config.vocab_size
    table = make_stop_table(stop_strings, tokenizer, rows) if stop_strings else None
    return Sampler(options, tokenizer, max_prompt_length, compiled, table, reference_length)


@lru_cache(maxsize=32)
def _compiled(networks: Networks, options: DecodingOptions, mesh: Mesh) -> Callable[..., Rollout]:
    program = partial(sample, networks=networks, options=options)
    return jax.jit(program, out_shardings=batch_sharding(mesh))


def training_options(config: Config, stop_ids: tuple[int, ...], pad_id: int) -> DecodingOptions:
    """How the rollouts of training are drawn."""
    sampling = config.sampling
    return DecodingOptions(
        **sampling.truncation(),
        group_size=sampling.group_size,
        max_completion_length=sampling.max_completion_length,
        slots=sampling.slots,
        stop_ids=stop_ids,
        pad_id=pad_id,
        entropy=config.algorithm.mask_by == "entropy",
    )


def evaluation_options(config: Config, stop_ids: tuple[int, ...], pad_id: int) -> DecodingOptions:
    """How held-out answers are drawn."""
    return DecodingOptions(
        **config.evaluation.truncation(),
        group_size=config.evaluation.num_samples,
        max_completion_length=config.sampling.max_completion_length,
        stop_ids=stop_ids,
        pad_id=pad_id,
    )


def read_answers(rollout: Rollout, prompts: Sequence[Prompt], sampler: Sampler) -> Answers:
    """This process's sequences as text without special tokens, with their problems.

    `prompts` are those of the full rollout.
    """
    rows = own_rows(rollout.tokens.sharding, rollout.tokens.shape[0])
    mask = read_rows(rollout.completion_mask, rows)
    completions = read_rows(rollout.tokens, rows)[:, -mask.shape[1] :]
    lengths = mask.sum(axis=1)
    decode = partial(sampler.tokenizer.decode, skip_special_tokens=True)
    group = sampler.options.group_size
    prompt_of_row = [prompts[row // group] for row in rows]
    decode_prompt = cache(partial(decode_with_unknown, tokenizer=sampler.tokenizer))
    return Answers(
        rows=rows,
        prompts=[decode_prompt(p.tokens) for p in prompt_of_row],
        problems=[p.record.problem for p in prompt_of_row],
        completions=[str(decode(row[:n])) for row, n in zip(completions, lengths, strict=True)],
        answers=[p.record.answer for p in prompt_of_row],
        records=[p.record.columns for p in prompt_of_row],
        truncated=~sampler.has_ended(completions, lengths),
        lengths=lengths,
    )
