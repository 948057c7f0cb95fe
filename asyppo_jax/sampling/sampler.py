"""The compiled decoding program with its tokenizer: prompts in, a rollout and its texts out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from asyppo_jax.config import Config
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.runtime.multi_host import own_rows, read_rows
from asyppo_jax.runtime.sharding import batch_sharding, put, replicated
from asyppo_jax.sampling import DecodingOptions, holds_stop_string, make_stop_table, sample
from asyppo_jax.tasks.prompts import Prompt, Tokenizer, pad_prompts
from asyppo_jax.types import Params, Rollout


@dataclass(frozen=True)
class Sampler:
    """The compiled decoding program for one set of options, with what it takes to feed it."""

    options: DecodingOptions
    tokenizer: Tokenizer
    max_prompt_length: int
    program: Callable[..., Rollout]
    stop_table: np.ndarray | None = None  # of the stop strings, if there are any

    def __call__(
        self,
        params: Params,
        prompts: Sequence[Prompt],
        key: jax.Array,
        mesh: Mesh,
        first_row: int = 0,
    ) -> Rollout:
        """Pads the prompts, places them and samples; rewards are still to come."""
        batch = pad_prompts(prompts, self.max_prompt_length, self.options.pad_id)
        placement = jax.tree.map(lambda _: batch_sharding(mesh), batch)
        more: dict[str, Any] = {"first_row": put(np.int32(first_row), replicated(mesh))}
        if self.stop_table is not None:
            more["stop_table"] = put(self.stop_table, replicated(mesh))
        return self.program(params, put(batch, placement), key, **more)

    def has_ended(self, completions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Which rows end in a stop token or with a stop string, and not at the greatest length."""
        last = completions[np.arange(len(lengths)), np.maximum(lengths, 1) - 1]
        ended = np.isin(last, self.options.stop_ids)
        if self.stop_table is not None:
            ended |= holds_stop_string(self.stop_table, completions, lengths)
        return ended


class Answers(NamedTuple):
    """This process's rows of a rollout as text; the G answers to a problem side by side."""

    rows: np.ndarray  # [n] which of the rollout's rows they are: all B with one process
    prompts: list[str]
    problems: list[str]
    completions: list[str]
    answers: list[str]  # the references
    truncated: np.ndarray  # [n] bool, no stop within the length
    lengths: np.ndarray  # [n] tokens, stop token included


def make_sampler(
    networks: Networks, tokenizer: Tokenizer, config: Config, options: DecodingOptions, mesh: Mesh
) -> Sampler:
    """A sampler whose rollouts lie over the mesh's `data` axis."""
    program = partial(sample, networks=networks, options=options)
    compiled = jax.jit(program, out_shardings=batch_sharding(mesh))
    strings = config.sampling.stop_strings
    table = make_stop_table(strings, tokenizer) if strings else None
    return Sampler(options, tokenizer, config.prompt.max_length, compiled, table)


def training_options(config: Config, stop_ids: tuple[int, ...], pad_id: int) -> DecodingOptions:
    """How the rollouts of training are drawn."""
    s = config.sampling
    return DecodingOptions(
        group_size=s.group_size,
        max_completion_length=s.max_completion_length,
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        stop_ids=stop_ids,
        pad_id=pad_id,
        slots=s.slots,
        min_p=s.min_p,
    )


def evaluation_options(config: Config, stop_ids: tuple[int, ...], pad_id: int) -> DecodingOptions:
    """How held-out answers are drawn."""
    e = config.evaluation
    return DecodingOptions(
        group_size=e.num_samples,
        max_completion_length=config.sampling.max_completion_length,
        temperature=e.temperature,
        top_k=e.top_k,
        top_p=e.top_p,
        min_p=e.min_p,
        stop_ids=stop_ids,
        pad_id=pad_id,
    )


def read_answers(rollout: Rollout, prompts: Sequence[Prompt], sampler: Sampler) -> Answers:
    """The process's own rows as text (special tokens left out), beside their problems.

    `prompts` are those of the whole rollout.
    """
    rows = own_rows(rollout.tokens.sharding, rollout.tokens.shape[0])
    mask = read_rows(rollout.completion_mask, rows)
    completions = read_rows(rollout.tokens, rows)[:, -mask.shape[1] :]
    lengths = mask.sum(axis=1)
    decode = partial(sampler.tokenizer.decode, skip_special_tokens=True)
    group = sampler.options.group_size
    each = [prompts[row // group] for row in rows]
    decode_prompt = cache(lambda tokens: str(decode(tokens)))
    return Answers(
        rows=rows,
        prompts=[decode_prompt(p.tokens) for p in each],
        problems=[p.record.problem for p in each],
        completions=[str(decode(row[:n])) for row, n in zip(completions, lengths, strict=True)],
        answers=[p.record.answer for p in each],
        truncated=~sampler.has_ended(completions, lengths),
        lengths=lengths,
    )
