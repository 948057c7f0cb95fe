"""The loop of a run: sample, score, step, evaluate, log, save; and resuming after a kill."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from asyppo_jax.algorithm.offload import initial_state, make_train_step, resting_shardings
from asyppo_jax.algorithm.state import state_shapes
from asyppo_jax.algorithm.train_step import phase_key, warmup_steps
from asyppo_jax.config import Config
from asyppo_jax.config.checks import check_divides_data_axis
from asyppo_jax.evaluation.held_out import evaluate
from asyppo_jax.models.actor_critic import Networks
from asyppo_jax.models.pretrained import (
    critic_source,
    load_actor_params,
    load_critic_params,
    load_networks,
)
from asyppo_jax.runs import checkpoint as checkpoints
from asyppo_jax.runs.base_files import keep_base_files
from asyppo_jax.runs.metrics import (
    METRICS_FILE,
    MetricWriter,
    read_metrics,
    require_finite,
    write_summary,
)
from asyppo_jax.runs.plots import plot_run
from asyppo_jax.runs.progress import Progress, describe_sizes, format_samples
from asyppo_jax.runs.save_heldout import make_heldout_saver
from asyppo_jax.runs.save_rollouts import make_rollout_saver
from asyppo_jax.runtime.multi_host import gather_rows, is_first, sum_over_hosts
from asyppo_jax.runtime.paths import check_packages
from asyppo_jax.runtime.sharding import make_mesh, placed, put
from asyppo_jax.sampling.rollouts import join_chunks, sample_in_chunks, with_rewards
from asyppo_jax.sampling.sampler import (
    Answers,
    Sampler,
    evaluation_options,
    make_sampler,
    training_options,
)
from asyppo_jax.tasks.prompts import Prompt, make_prompt_iterator, make_prompts
from asyppo_jax.tasks.records import load_records
from asyppo_jax.tasks.rewards import RewardPool, Scores, join_scores
from asyppo_jax.tasks.tokenizers import (
    check_same_vocabulary,
    load_tokenizer,
    pad_token_id,
    stop_token_ids,
)
from asyppo_jax.types import TrainState


@dataclass(frozen=True)
class Run:
    """What does not change from the first step to the last."""

    config: Config
    mesh: Mesh
    networks: Networks
    sampler: Sampler
    evaluation_sampler: Sampler
    train_prompts: Sequence[Prompt]
    eval_prompts: Sequence[Prompt]
    train_step: Callable[..., Any]


def prepare(config: Config) -> Run:
    """The run of a config: data, tokenizer and architectures are read and checked to fit."""
    mesh = make_mesh(config.mesh)
    check_divides_data_axis(config, mesh.shape["data"])
    networks = load_networks(config)
    tokenizer = load_tokenizer(config.actor.path)
    if networks.critic is not None and critic_source(config).path != config.actor.path:
        check_same_vocabulary(tokenizer, load_tokenizer(config.critic.path))
    stop_ids = stop_token_ids(tokenizer, config.actor.path, config.sampling.stop_tokens)
    pad_id = pad_token_id(tokenizer)
    train_prompts, train_report = make_prompts(
        load_records(config.train_data), tokenizer, config.prompt
    )
    eval_prompts, eval_report = make_prompts(
        load_records(config.eval_data), tokenizer, config.prompt
    )
    sampler = partial(
        make_sampler,
        networks,
        tokenizer,
        mesh=mesh,
        max_prompt_length=config.prompt.max_length,
        stop_strings=config.sampling.stop_strings,
    )
    _print_once(f"training problems: {train_report.summary()}")
    _print_once(f"held-out problems: {eval_report.summary()}")
    return Run(
        config=config,
        mesh=mesh,
        networks=networks,
        sampler=sampler(training_options(config, stop_ids, pad_id)),
        evaluation_sampler=sampler(evaluation_options(config, stop_ids, pad_id)),
        train_prompts=train_prompts,
        eval_prompts=eval_prompts,
        train_step=make_train_step(networks, config, mesh),
    )


def first_state(run: Run) -> TrainState:
    """The state before the first step: pretrained weights, sharded as the run needs them."""
    config, networks = run.config, run.networks
    shardings = resting_shardings(config, networks, run.mesh)
    actor = put(load_actor_params(config, networks), shardings.actor_params)
    critics = put(load_critic_params(config, networks), shardings.critic_params)
    return initial_state(config, networks, run.mesh, actor, critics)


def train(config: Config, workdir: str) -> dict[str, Any]:
    """Trains from the last checkpoint in `workdir`, or from the start; returns the summary.

    A run that was killed and is started again ends equal, to the last bit, to one that was not.
    If several processes share the run (see `multi_host.initialize`), all must call this with the
    same arguments; the first one writes, and the others return an empty summary.

    Raises:
        ConfigError, ModelError, DataError, CheckpointError, NonFiniteError: in one sentence each.
    """
    started = time.perf_counter()
    settings = dataclasses.asdict(config)
    check_packages(workdir)
    checkpoints.check_same_run(workdir, settings)
    run = prepare(config)
    checkpoints.write_settings(workdir, settings)
    keep_base_files(config, workdir)
    with jax.set_mesh(run.mesh), RewardPool(config.reward) as pool:
        manager = checkpoints.make_manager(workdir, config.checkpoint)
        data = make_prompt_iterator(
            run.train_prompts, batch_size=config.sampling.num_prompts, seed=config.seed
        )
        try:
            state = _restore_or_start(run, manager, data)
            _print_once(describe_sizes(config))
            _train_on(run, state, data, pool, manager, workdir, started)
        finally:
            manager.wait_until_finished()
            manager.close()
    return _summarize_run(config, workdir) if is_first() else {}


def _print_once(text: str) -> None:
    if is_first():
        print(text)


def _restore_or_start(run: Run, manager, data) -> TrainState:
    if manager.latest_step() is None:
        return first_state(run)
    shardings = resting_shardings(run.config, run.networks, run.mesh)
    shapes = state_shapes(run.config, run.networks)
    state, data_state = checkpoints.restore(manager, placed(shapes, shardings))
    data.set_state(data_state)
    _print_once(f"resuming after step {int(state.step)} of {manager.directory}")
    return state


def _train_on(run: Run, state: TrainState, data, pool, manager, workdir, started: float) -> None:
    """Runs steps, evaluations, metrics and checkpoints from the state's step to the last."""
    config, step = run.config, int(state.step)
    is_writer = is_first()
    save_rollout = make_rollout_saver(workdir, run.networks, run.sampler, config, run.mesh)
    save_heldout = make_heldout_saver(
        workdir, run.networks, run.evaluation_sampler, config, run.mesh, run.eval_prompts
    )
    if step and is_writer:  # the clock continues from the step that the run resumes after
        rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
        started -= max((r["time/elapsed_s"] for r in rows if r["step"] <= step), default=0.0)
    with (
        closing(MetricWriter(workdir, config.log, start_step=step, is_writer=is_writer)) as writer,
        closing(Progress(config.num_steps, start_step=step, is_writer=is_writer)) as progress,
    ):

        def write(metrics: dict[str, float]) -> None:
            writer.write(step, metrics | {"time/elapsed_s": time.perf_counter() - started})

        if step == 0:
            write(_evaluate(run, state, pool, progress, save_heldout))
        while step < config.num_steps:
            state, metrics = _one_step(run, state, data, pool, progress, save_rollout)
            step += 1
            last = step == config.num_steps
            evaluated = last or (config.evaluation.every and step % config.evaluation.every == 0)
            if evaluated:
                metrics |= _evaluate(run, state, pool, progress, save_heldout)
            # Before the checkpoint: a resumed run does not write that step again.
            write(metrics)
            progress.finish_step(step, metrics)
            due = config.checkpoint.every and step % config.checkpoint.every == 0
            if last or due:
                accuracy = metrics["evaluate/accuracy"] if evaluated else None
                checkpoints.save(manager, state, data.get_state(), accuracy)


def _one_step(
    run: Run, state: TrainState, data, pool: RewardPool, progress: Progress, save_rollout
) -> tuple[TrainState, dict[str, float]]:
    """Samples, scores and updates once; raises `NonFiniteError` before anything is saved."""
    warming_up = int(state.step) < warmup_steps(run.config)
    step = int(state.step) + 1
    prompts, num_chunks = next(data), run.config.sampling.chunks
    key = phase_key(state.key, state.step, "sample")
    sampled = sample_in_chunks(run.sampler, state.actor_params, prompts, key, run.mesh, num_chunks)
    chunks, chunk_scores = [], []
    # All chunks but the last are scored while the next one is being sampled.
    with progress.phase("sample"):
        for chunk in islice(sampled, num_chunks - 1):
            chunks.append(chunk)
            chunk_scores.append(_score(pool, chunk[1]))
        chunks.append(next(sampled))
    with progress.phase("score"):
        scores = join_scores([*chunk_scores, _score(pool, chunks[-1][1])])
        rollout, answers = join_chunks(chunks, run.mesh)
        local = scores.rewards, scores.valid, answers.truncated, answers.lengths
        rewards, valid, truncated, lengths = gather_rows(local, answers.rows, len(rollout.rewards))
        rollout = with_rewards(rollout, rewards, valid, run.mesh)
    save_rollout(state, rollout, prompts)
    # The step must not transfer anything between host and device implicitly.
    with progress.phase("update"), jax.transfer_guard("disallow"):
        state, device_metrics = run.train_step(state, rollout)
        metrics = {name: float(x) for name, x in jax.device_get(device_metrics).items()}
    if warming_up:  # the actor was not updated: its metrics are NaN
        of_actor = ("actor/", "rollout/log_prob_gap")
        metrics = {name: x for name, x in metrics.items() if not name.startswith(of_actor)}
    require_finite(step, metrics)
    times = progress.take_times()
    metrics["rollout/truncated_fraction"] = float(truncated.mean())
    metrics["rollout/tokens_per_s"] = float(lengths.sum()) / times["time/sample_s"]
    _print_step(run.config, step, metrics, answers, scores, progress)
    return state, metrics | times


def _score(pool: RewardPool, answers: Answers) -> Scores:
    return pool.score(answers.problems, answers.completions, answers.answers)


def _evaluate(
    run: Run, state: TrainState, pool: RewardPool, progress: Progress, save_heldout
) -> dict[str, float]:
    with progress.phase("evaluate"):
        result = evaluate(
            run.evaluation_sampler,
            state.actor_params,
            run.eval_prompts,
            pool,
            phase_key(state.key, state.step, "evaluate"),
            run.config,
            run.mesh,
            on_first_batch=partial(save_heldout, state) if save_heldout else None,
        )
    progress.print(
        f"step {int(state.step)}: held-out accuracy {result.accuracy:.3f} "
        f"({len(run.eval_prompts)} problems, {result.invalid} answers without a score)"
    )
    return result.metrics() | progress.take_times()


def _print_step(
    config: Config,
    step: int,
    metrics: dict[str, float],
    answers: Answers,
    scores: Scores,
    progress: Progress,
) -> None:
    """Prints answers without a score, a log-prob gap that is too large, and samples."""
    reasons = {name: int(count) for name, count in sum_over_hosts(scores.reasons).items()}
    if any(reasons.values()):
        progress.print(f"step {step}: answers without a score: {reasons}")
    gap, bound = metrics.get("rollout/log_prob_gap", 0.0), config.algorithm.log_prob_gap_bound
    if gap > bound:
        progress.print(
            f"step {step}: the log-probs of sampler and learner differ by {gap:.3g} nats per token "
            f"on average, more than config.algorithm.log_prob_gap_bound = {bound:g}; use float32 "
            'or config.algorithm.old_log_probs = "recompute"'
        )
    if is_first() and config.log.samples_every and step % config.log.samples_every == 0:
        rows = np.linspace(0, len(answers.problems) - 1, config.log.num_samples).astype(int)
        progress.print(
            format_samples(
                step,
                [answers.prompts[i] for i in rows],
                [answers.completions[i] for i in rows],
                [float(scores.rewards[i]) for i in rows],
                [bool(scores.valid[i]) for i in rows],
            )
        )


def _summarize_run(config: Config, workdir: str) -> dict[str, Any]:
    """Writes summary.json and the plots from the metrics of the run."""
    rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
    evaluations = [
        (row["step"], row["evaluate/accuracy"]) for row in rows if "evaluate/accuracy" in row
    ]
    best_step, best = max(evaluations, key=lambda e: -math.inf if e[1] is None else e[1])
    summary = {
        "accuracy_before": evaluations[0][1],
        "accuracy_after": evaluations[-1][1],
        "accuracy_best": best,
        "best_step": best_step,
        "steps": rows[-1]["step"],
        "seconds": rows[-1]["time/elapsed_s"],
        "seed": config.seed,
        "plots": [str(path) for path in plot_run(workdir)],
    }
    write_summary(workdir, summary)
    return summary
