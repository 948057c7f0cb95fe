"""Between text and arrays: prompts onto the devices, sampled tokens back to answers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from asyppo_jax.config import Config, ConfigError
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


def one_ahead(starts: Iterable[Callable[[], Rollout]]) -> Iterator[Rollout]:
    """The rollout of each start, once it is there; by then the next one has been started.

    So the devices sample the next while the host scores this one.
    """
    begun: Rollout | None = None
    for start in starts:
        ready = begun
        if ready is not None:
            jax.block_until_ready(ready)
        begun = start()
        if ready is not None:
            yield ready
    if begun is not None:
        yield jax.block_until_ready(begun)


def sample_in_parts(
    sampler: Sampler,
    params: Params,
    prompts: Sequence[Prompt],
    key: jax.Array,
    mesh: Mesh,
    parts: int,
) -> Iterator[tuple[Rollout, Answers]]:
    """The rollout in `parts` of equally many prompts, one sampled ahead; see `join_parts`.

    `Answers.rows` are rows of the whole.
    """
    size = len(prompts) // parts
    pieces = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    rows = range(0, len(prompts) * sampler.options.group_size, size * sampler.options.group_size)
    starts = (
        partial(sampler, params, piece, key, mesh, first)
        for piece, first in zip(pieces, rows, strict=True)
    )
    for piece, first, rollout in zip(pieces, rows, one_ahead(starts), strict=True):
        answers = read_answers(rollout, piece, sampler)
        yield rollout, answers._replace(rows=answers.rows + first)


def join_parts(parts: Sequence[tuple[Rollout, Answers]], mesh: Mesh) -> tuple[Rollout, Answers]:
    """One rollout and its answers out of their parts, in their order."""
    rollouts, answers = zip(*parts, strict=True)
    if len(rollouts) == 1:
        return rollouts[0], answers[0]
    whole = jax.jit(_concatenate, out_shardings=batch_sharding(mesh))(*rollouts)
    columns: list[Any] = [
        np.concatenate(x) if isinstance(x[0], np.ndarray) else list(chain(*x))
        for x in zip(*answers, strict=True)
    ]
    return whole, Answers(*columns)


def _concatenate(*rollouts: Rollout) -> Rollout:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *rollouts)


def with_rewards(rollout: Rollout, rewards: np.ndarray, valid: np.ndarray, mesh: Mesh) -> Rollout:
    """The rollout with its scores: float32 whatever the scorer gave, so that 0.5 stays 0.5."""
    place = batch_sharding(mesh)
    scores = np.asarray(rewards, np.float32), np.asarray(valid, bool)
    placed_rewards, placed_valid = put(scores, (place, place))
    return rollout.replace(rewards=placed_rewards, reward_valid=placed_valid)


def check_divides_data_axis(config: Config, data: int) -> None:
    """Raises `ConfigError` where prompts or microbatches cannot be spread over `data` devices."""
    batching = config.batching
    sizes = {
        "config.sampling.num_prompts": config.sampling.num_prompts,
        "config.sampling.num_prompts / parts": config.sampling.num_prompts // config.sampling.parts,
        "config.evaluation.batch_size": config.evaluation.batch_size,
        "config.batching.microbatch_size": batching.microbatch_size,
        "config.batching.critic_microbatch_size": batching.critic_microbatch_size,
        "config.batching.microbatch_size / rows_per_prompt": batching.rows_of(
            batching.microbatch_size
        ),
    }
    for name, size in sizes.items():
        if size % data:
            raise ConfigError(f"{name} is {size}; make it a multiple of the data axis, {data}")


def check_same_vocabulary(actor: Tokenizer, critic: Tokenizer) -> None:
    """Raises `ConfigError`, naming the first difference, where two tokenizers are not the same."""
    ours, theirs = actor.get_vocab(), critic.get_vocab()
    different = [t for t in sorted(ours.keys() | theirs.keys()) if ours.get(t) != theirs.get(t)]
    if different:
        token = different[0]
        raise ConfigError(
            f"config.critic.path has another tokenizer than config.actor.path: token {token!r} is "
            f"{ours.get(token, 'absent')} for the actor and {theirs.get(token, 'absent')} for the "
            f"critics ({len(different)} differ); take critics of the actor's family"
        )
