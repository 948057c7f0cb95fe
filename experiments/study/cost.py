"""Seconds per step and memory of each setting of a study, side by side in one run."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import jax

from asyppo_jax.algorithm.state import programs_config
from asyppo_jax.config import Config, ConfigError
from asyppo_jax.models.pretrained import load_networks
from asyppo_jax.planning.phases import AFTER_SAMPLING, phase_programs
from asyppo_jax.runs.metrics import read_metrics
from asyppo_jax.runtime.sharding import make_mesh
from experiments.report.tables import markdown
from experiments.study.results import Status, warmup_steps
from experiments.study.runner import pool_of_workers, serve
from experiments.study.study import Study, StudyRun

_SEEDS = 2  # so many rounds: the machine may be busier in one of them
_MIB = 2**20


def cost(study: Study, runs: Sequence[StudyRun], workdir: Path, steps: int) -> str:
    """Does `steps` steps of each setting that update the actor; returns a table per task and actor.

    One run at a time, in one process, all settings with the first seed and then with the second.
    A step counts from the second that updates the actor on, because the first of each kind
    compiles. The table has medians of the seconds per step, and the memory that the compiler gives
    the program of an update: state, inputs, temporaries and results.

    Raises:
        ConfigError: a run failed or diverged.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    short = [_shortened(run, steps) for run in runs if run.seed in study.seeds[:_SEEDS]]

    def done(run: StudyRun, status: Status, reply: dict[str, Any]) -> None:
        if status.state != "finished":
            raise ConfigError(f"the run {run.name} {status.state}: {status.message}")

    with pool_of_workers(1, study.threads) as workers:
        serve(workers, list(short), workdir, study.threads, done)
    groups = dict.fromkeys((run.task, run.actor) for run in short)
    return "\n\n".join(
        _table([run for run in short if (run.task, run.actor) == group], study.reference, workdir)
        for group in groups
    )


def _shortened(run: StudyRun, steps: int) -> StudyRun:
    config = run.config
    return run._replace(
        config=replace(
            config,
            num_steps=warmup_steps(config) + 1 + steps,
            evaluation=replace(config.evaluation, every=0),
            checkpoint=replace(config.checkpoint, every=0),
        )
    )


def _table(runs: Sequence[StudyRun], reference: str, workdir: Path) -> str:
    head = ["method", "sampling, s", "update, s", "step, s", "ratio", "update, MiB", "ratio"]
    rows: dict[str, tuple[float, float, float, float]] = {}
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        timed = [times for run in own for times in _step_times(run, workdir)]
        sampling, update, step = (median(column) for column in zip(*timed, strict=True))
        memory = update_bytes(programs_config(own[0].config))  # equal for most tasks
        rows[method] = sampling, update, step, memory / _MIB
    compared = reference if reference in rows else next(iter(rows))
    _, _, step_of_reference, memory_of_reference = rows[compared]
    lines = [
        [
            method,
            *(f"{seconds:.3f}" for seconds in (sampling, update, step)),
            f"{step / step_of_reference:.2f}",
            f"{memory:.0f}",
            f"{memory / memory_of_reference:.2f}",
        ]
        for method, (sampling, update, step, memory) in rows.items()
    ]
    title = f"{runs[0].task} / {runs[0].actor}, ratios to {compared}"
    return f"{title}\n\n{markdown(head, lines)}"


def _step_times(run: StudyRun, workdir: Path) -> list[tuple[float, float, float]]:
    """(sampling, update, full step) in seconds of each step that compiles nothing."""
    compiled = warmup_steps(run.config) + 1
    times = []
    for row in read_metrics(workdir / run.folder / "metrics.jsonl"):
        if row["step"] > compiled:
            sampling, scoring, update = (
                row[f"time/{name}_s"] for name in ("sample", "score", "update")
            )
            times.append((sampling, update, sampling + scoring + update))
    return times


@cache
def update_bytes(config: Config) -> float:
    """Bytes on a device of the program that updates critics and actor, or of its largest phase.

    State and inputs, temporaries, and the results that are not written over them.
    """
    networks = load_networks(config, jax.default_backend())
    mesh = make_mesh(config.mesh, jax.devices())
    programs, _ = phase_programs(config, networks, mesh)
    phases = ("step",) if config.mesh.is_one_program else AFTER_SAMPLING
    largest = 0.0
    for program in [programs[phase] for phase in phases if phase in programs]:
        with jax.set_mesh(mesh):
            lowered = jax.jit(program.function, **program.jit).lower(*program.arguments)
        memory: Any = lowered.compile().memory_analysis()
        used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        largest = max(largest, used + memory.output_size_in_bytes - memory.alias_size_in_bytes)
    return float(largest)
