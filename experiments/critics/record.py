"""Rollouts of one run and states of known value, saved so that many critics can learn from them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from asyppo_jax.algorithm.train_step import phase_key
from asyppo_jax.config import Config, ConfigError
from asyppo_jax.evaluation.true_values import States, sample_states
from asyppo_jax.runs.setup import Run, first_state, prepare
from asyppo_jax.runtime.phase_meshes import to_mesh
from asyppo_jax.sampling.loaded import LoadedActor
from asyppo_jax.sampling.rollouts import join_chunks, sample_in_chunks, with_rewards
from asyppo_jax.tasks.prompts import (
    Prompt,
    check_reference_lengths,
    make_prompt_iterator,
    pad_critic_prompts,
    with_reference,
)
from asyppo_jax.tasks.records import Record
from asyppo_jax.tasks.rewards import RewardPool
from asyppo_jax.tasks.tokenizers import Tokenizer, pad_token_id
from asyppo_jax.types import Rollout, TrainState


class Measure(NamedTuple):
    """After which steps the values of states are measured, and with how many samples."""

    steps: Sequence[int]
    prompts: int
    group_size: int
    continuations: int


def record(config: Config, directory: Path, num_steps: int, measure: Measure) -> None:
    """Trains as `config` says and saves each step's rollout, and states after some steps.

    Files: rollout_01.npz, …; states_03.npz, … `done.json` marks a complete record; one that was
    interrupted starts again.
    """
    settings = json.loads(
        json.dumps({"config": dataclasses.asdict(config), **measure._asdict(), "last": num_steps})
    )
    if (directory / "done.json").is_file():
        recorded = json.loads((directory / "done.json").read_text())
        differ = [name for name, value in settings.items() if recorded[name] != value]
        if differ:
            raise ConfigError(
                f"{directory} is a record with another {differ[0]}; give another --workdir"
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    if config.algorithm.zero_spread_groups == "resample":
        raise ConfigError(
            "config.algorithm.zero_spread_groups is 'resample', which a record cannot have; set it "
            "to 'drop'"
        )
    run = prepare(config)
    data = make_prompt_iterator(
        run.train_prompts, batch_size=config.sampling.num_prompts, seed=config.seed
    )
    with RewardPool(config.reward) as pool, jax.set_mesh(run.mesh):
        state = first_state(run)
        for step in tqdm(range(1, num_steps + 1), desc=f"record {directory}"):
            prompts = next(data)
            rollout = _sample(run, state, prompts, pool)
            if step == 1 and run.init_heads is not None:
                heads = run.init_heads(state.critic_params, rollout)
                state = state.replace(critic_params=heads)
            save(directory / f"rollout_{step:02}.npz", rollout, prompts)
            state, _ = run.train_step(state, rollout)
            if step in measure.steps:
                states = _measure(run, state, pool, measure)
                prompts = run.eval_prompts[: measure.prompts]
                save(directory / f"states_{step:02}.npz", states, prompts)
    (directory / "done.json").write_text(json.dumps(settings))


def _sample(run: Run, state: TrainState, prompts: Any, pool: RewardPool) -> Rollout:
    mesh, seen = run.sampling_mesh, run.for_sampling(state)
    with jax.set_mesh(mesh):
        key = phase_key(seen.key, seen.step, "sample")
        chunks = list(sample_in_chunks(run.sampler, seen.actor_params, prompts, key, mesh, 1))
        rollout, answers = join_chunks(chunks, mesh)
    scores = pool.score(answers.problems, answers.completions, answers.answers, answers.records)
    rollout = with_rewards(rollout, scores.rewards, scores.valid, mesh, answers.truncated)
    return to_mesh(rollout, run.mesh)


def _measure(run: Run, state: TrainState, pool: RewardPool, measure: Measure) -> States:
    actor = LoadedActor(
        path=run.config.actor.path,
        networks=run.networks,
        params=state.actor_params,
        tokenizer=run.sampler.tokenizer,
        config=run.config,
        step=int(state.step),
        mesh=run.mesh,
    )
    return sample_states(
        actor,
        run.eval_prompts[: measure.prompts],
        pool,
        group_size=measure.group_size,
        continuations=measure.continuations,
        seed=run.config.seed,
    )


def save(file: Path, tree: Rollout | States, prompts: Sequence[Prompt]) -> None:
    """Writes the arrays of a rollout, or of states with their rollout, and the reference answers.

    What critics read in place of the prompt is not written: a replay makes it as its critics need.
    """
    rollout = tree.rollout if isinstance(tree, States) else tree
    rollout = rollout.replace(critic_prompt=None, critic_prompt_mask=None)
    arrays: dict[str, Any] = {
        f"rollout.{k}": np.asarray(v) for k, v in vars(rollout).items() if v is not None
    }
    arrays["answers"] = np.array([prompt.record.answer for prompt in prompts])
    if isinstance(tree, States):
        arrays |= {k: np.asarray(v) for k, v in vars(tree).items() if k != "rollout"}
    np.savez_compressed(file, **arrays)


def load_rollout(file: Path, config: Config, tokenizer: Tokenizer) -> Rollout:
    """The rollout that `save` wrote, with what the critics of `config` read.

    Raises:
        ConfigError: they read reference answers, and the record is of a version without them.
    """
    with np.load(file) as arrays:
        fields = {k.removeprefix("rollout."): arrays[k] for k in arrays if k.startswith("rollout.")}
        answers = arrays["answers"].tolist() if "answers" in arrays else None
    rollout = Rollout(**fields)
    if not config.value.reference_answer:
        return rollout
    if answers is None:
        raise ConfigError(
            f"{file} has no reference answers, because an earlier version recorded it; give "
            "another --workdir"
        )
    return _with_critic_prompts(rollout, answers, config, tokenizer)


def _with_critic_prompts(
    rollout: Rollout, answers: Sequence[str], config: Config, tokenizer: Tokenizer
) -> Rollout:
    """The rollout with the critics' own prompts, as a sampler makes them."""
    group, length = len(rollout.tokens) // len(answers), rollout.prompt_mask.shape[1]
    prompts = []
    for row, answer in zip(range(0, len(rollout.tokens), group), answers, strict=True):
        tokens = rollout.tokens[row, :length][rollout.prompt_mask[row]]
        prompt = Prompt(tuple(tokens.tolist()), Record("", answer))
        prompts.append(with_reference(prompt, tokenizer, config.value))
    check_reference_lengths(prompts, config.reference_length)
    batch = pad_critic_prompts(prompts, config.reference_length + length, pad_token_id(tokenizer))
    return rollout.replace(
        critic_prompt=np.repeat(batch.tokens, group, axis=0),
        critic_prompt_mask=np.repeat(batch.mask, group, axis=0),
    )


def load_states(file: Path, config: Config, tokenizer: Tokenizer) -> States:
    """The states that `save` wrote, see `load_rollout`."""
    with np.load(file) as arrays:
        own = {k: arrays[k] for k in arrays if not k.startswith("rollout.")}
    return States(
        rollout=load_rollout(file, config, tokenizer),
        group_size=int(own["group_size"]),
        fractions=tuple(own["fractions"].tolist()),
        continuations=int(own["continuations"]),
        prefix_lengths=own["prefix_lengths"],
        index=own["index"],
        values=own["values"],
        squared_errors=own["squared_errors"],
    )
