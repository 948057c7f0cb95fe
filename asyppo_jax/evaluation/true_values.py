"""States of sampled answers whose values are known: the mean reward of continuations.

The value of the state before token t is V*(s_t) = E[r | prompt, the tokens before t] under the
policy. Its estimate here is the mean reward of m continuations that the same policy samples from
that prefix, an unbiased estimate with the known squared standard error s² / m (s² the sample
variance). It is what a critic should say, so it tells whether the critic knows something. Explained
variance against returns cannot, because a return is one draw of the reward.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from asyppo_jax.config import ConfigError
from asyppo_jax.sampling.loaded import LoadedActor
from asyppo_jax.sampling.sampler import Sampler, training_options
from asyppo_jax.sampling.stops import cut_at_stop_string
from asyppo_jax.tasks.prompts import Prompt
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.tasks.tokenizers import special_ids
from asyppo_jax.types import Rollout

FRACTIONS = (0.0, 0.15, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class States:
    """N · G sampled answers, and the estimated values of F prefixes of each.

    A prefix of fraction f has the first ⌊f · |o|⌋ tokens of an answer o. Arrays are on the host.
    """

    rollout: Rollout  # [B, ...], B = N · G, with rewards
    group_size: int  # G
    fractions: tuple[float, ...]
    continuations: int  # m
    prefix_lengths: Int[np.ndarray, "F B"]
    index: Int[np.ndarray, "F B"]  # of the state: equal prefixes of a prompt have the same
    values: Float[np.ndarray, "F B"]  # mean reward of the continuations; NaN: fewer than 2 scored
    squared_errors: Float[np.ndarray, "F B"]  # s² / m

    def __repr__(self) -> str:
        fractions = ", ".join(f"{fraction:g}" for fraction in self.fractions)
        prompts = self.index.shape[1] // self.group_size
        return (
            f"States({np.unique(self.index).size} states: {prompts} prompts x {self.group_size} "
            f"answers, prefixes of {fractions}, {self.continuations} continuations each)"
        )


class _Prefix(NamedTuple):
    prompt: int
    tokens: tuple[int, ...]


def sample_states(
    actor: LoadedActor,
    prompts: Sequence[Prompt],
    pool: RewardPool,
    *,
    group_size: int = 8,
    continuations: int = 32,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> States:
    """Samples `group_size` answers per prompt, and continuations from prefixes of each answer.

    Both are drawn as in training (`actor.config.sampling`) and scored by `pool` as whole answers.
    A continuation ends where the answer would: at a stop, or after `max_completion_length` tokens
    of the answer, prefix included. Equal prefixes of a prompt are one state. If the run's critics
    read reference answers, the prompts need them (`make_prompts` with `config.value`).

    Raises:
        ConfigError: a number is too small, a fraction is outside [0, 1), a reference answer is
            missing, or there are several processes.
    """
    _check(actor, prompts, group_size, continuations, fractions)
    key = jax.random.key(seed)
    answers = _sample_answers(actor, prompts, pool, group_size, jax.random.fold_in(key, 0))
    lengths = answers.completion_mask.sum(axis=1)
    prefix_lengths = np.floor(np.multiply.outer(np.array(fractions), lengths) + 1e-9).astype(int)
    completions = answers.tokens[:, -answers.completion_mask.shape[1] :]
    index_of: dict[_Prefix, int] = {}
    index = np.empty(prefix_lengths.shape, int)
    for (f, row), length in np.ndenumerate(prefix_lengths):
        prefix = _Prefix(row // group_size, tuple(completions[row, :length].tolist()))
        index[f, row] = index_of.setdefault(prefix, len(index_of))
    means, errors = _continue(
        actor, prompts, list(index_of), pool, continuations, jax.random.fold_in(key, 1)
    )
    return States(
        rollout=answers,
        group_size=group_size,
        fractions=tuple(fractions),
        continuations=continuations,
        prefix_lengths=prefix_lengths,
        index=index,
        values=means[index],
        squared_errors=errors[index],
    )


def _check(
    actor: LoadedActor,
    prompts: Sequence[Prompt],
    group_size: int,
    continuations: int,
    fractions: Sequence[float],
) -> None:
    if not prompts:
        raise ConfigError("there are no prompts to sample answers to; give at least one")
    for name, value in (("group_size", group_size), ("continuations", continuations)):
        if value < 2:
            raise ConfigError(f"{name} is {value}; it must be 2 or more")
    for fraction in fractions:
        if not 0 <= fraction < 1:
            raise ConfigError(f"fraction {fraction} of an answer is outside [0, 1)")
    data = actor.mesh.shape["data"]
    if len(prompts) * group_size % data:
        raise ConfigError(
            f"{len(prompts)} prompts x {group_size} answers are not a multiple of the data axis, "
            f"{data}; change one of them"
        )
    if jax.process_count() > 1:
        raise ConfigError(
            "true values are measured in a single process; start it without --distributed"
        )


def _sampler(actor: LoadedActor, samples: int, longest: int) -> Sampler:
    """The training sampler with `samples` completions per prompt of up to `longest` tokens."""
    config, tokenizer = actor.config, actor.tokenizer
    rows = actor.networks.actor.config.vocab_size
    ids = special_ids(tokenizer, config.actor.path, config.sampling.stop_tokens, rows)
    options = training_options(config, *ids)
    return actor.sampler(replace(options, group_size=samples, slots=0), longest)


def _sample_answers(
    actor: LoadedActor, prompts: Sequence[Prompt], pool: RewardPool, group_size: int, key: jax.Array
) -> Rollout:
    sampler = _sampler(actor, group_size, max(len(p.tokens) for p in prompts))
    sampler = replace(sampler, reference_length=actor.config.reference_length)
    parts = []
    for i, batch in enumerate(_batches(len(prompts), group_size, actor)):
        chosen = [prompts[j] for j in batch]
        with jax.set_mesh(actor.mesh):
            rollout = sampler(actor.params, chosen, jax.random.fold_in(key, i), actor.mesh)
        parts.append(jax.device_get(rollout))
    rows = len(prompts) * group_size
    rollout: Rollout = jax.tree.map(lambda *x: np.concatenate(x)[:rows], *parts)
    lengths = rollout.completion_mask.sum(axis=1)
    completions = rollout.tokens[:, -rollout.completion_mask.shape[1] :]
    texts = [(row // group_size, np.asarray(completions[row, :n])) for row, n in enumerate(lengths)]
    rewards, valid = _score(actor, prompts, texts, pool)
    return rollout.replace(rewards=rewards, reward_valid=valid)


def _continue(
    actor: LoadedActor,
    prompts: Sequence[Prompt],
    prefixes: Sequence[_Prefix],
    pool: RewardPool,
    continuations: int,
    key: jax.Array,
) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " S"]]:
    """The mean reward from each prefix, and its squared standard error."""
    limit = actor.config.sampling.max_completion_length
    inputs = [
        Prompt((*prompts[p.prompt].tokens, *p.tokens), prompts[p.prompt].record) for p in prefixes
    ]
    # Prefixes of similar length share a batch, so that few are padded much.
    order = np.argsort([len(prompt.tokens) for prompt in inputs], kind="stable")
    means, errors = np.full(len(prefixes), np.nan), np.full(len(prefixes), np.nan)
    for i, positions in enumerate(_batches(len(prefixes), continuations, actor)):
        batch = order[positions]
        sampler = _sampler(actor, continuations, max(len(inputs[j].tokens) for j in batch))
        limits = np.repeat([limit - len(prefixes[j].tokens) for j in batch], continuations)
        with jax.set_mesh(actor.mesh):
            rollout = sampler(
                actor.params,
                [inputs[j] for j in batch],
                jax.random.fold_in(key, i),
                actor.mesh,
                limits=limits,
            )
        texts = _completed(jax.device_get(rollout), [prefixes[j] for j in batch], sampler)
        rewards, valid = _score(actor, prompts, texts, pool)
        for j, r, v in zip(
            batch,
            rewards.reshape(-1, continuations),
            valid.reshape(-1, continuations),
            strict=True,
        ):
            if v.sum() > 1:
                means[j], errors[j] = r[v].mean(), r[v].var(ddof=1) / v.sum()
    return means, errors


def _batches(count: int, samples: int, actor: LoadedActor) -> Iterator[np.ndarray]:
    """Indices of 0 … count − 1 in batches of one size, about as many sequences as in training.

    The last batch is filled with its last index.
    """
    sampling, data = actor.config.sampling, actor.mesh.shape["data"]
    size = max(1, sampling.num_prompts * sampling.group_size // samples)
    size = -(-min(size, count) // data) * data
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def _completed(
    rollout: Rollout, prefixes: Sequence[_Prefix], sampler: Sampler
) -> list[tuple[int, np.ndarray]]:
    """(prompt, tokens) of each whole answer: its prefix, then its continuation."""
    samples = sampler.options.group_size
    lengths = rollout.completion_mask.sum(axis=1)
    tokens = rollout.tokens[:, -rollout.completion_mask.shape[1] :]
    answers = []
    for row, n in enumerate(lengths):
        prefix = prefixes[row // samples]
        answer = np.concatenate([np.array(prefix.tokens, tokens.dtype), tokens[row, :n]])
        if sampler.stop_table is not None:  # a stop string may begin in the prefix
            answer = cut_at_stop_string(sampler.stop_table, answer)
        answers.append((prefix.prompt, answer))
    return answers


def _score(
    actor: LoadedActor,
    prompts: Sequence[Prompt],
    answers: Sequence[tuple[int, np.ndarray]],
    pool: RewardPool,
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and their validity; equal answers to a prompt are scored once."""
    index_of: dict[tuple[int, tuple[int, ...]], int] = {}
    index = [index_of.setdefault((p, tuple(t.tolist())), len(index_of)) for p, t in answers]
    records = [prompts[p].record for p, _ in index_of]
    scores = pool.score(
        [record.problem for record in records],
        [str(actor.tokenizer.decode(list(t), skip_special_tokens=True)) for _, t in index_of],
        [record.answer for record in records],
        [record.columns for record in records],
    )
    return scores.rewards[index], scores.valid[index]
