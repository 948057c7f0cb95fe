"""What a run leaves at its end: summary.json, plots, and the lines that say so."""

import math
import os
from typing import Any

from etils import epath

from asyppo_jax.algorithm.train_step import warmup_steps
from asyppo_jax.config import Config
from asyppo_jax.runs.metrics import METRICS_FILE, read_metrics, write_summary
from asyppo_jax.runs.plots import plot_run
from asyppo_jax.runs.setup import run_origin


def summarize_run(config: Config, workdir: str) -> dict[str, Any]:
    """Writes summary.json and the plots from the metrics of the run; returns the summary."""
    rows = read_metrics(epath.Path(workdir) / METRICS_FILE)
    origin, measure = run_origin(), config.reward.measure
    about = "   \N{MIDDLE DOT}   ".join([f"seed {config.seed}", *origin.values()])
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
        "measure": measure,
        "actor_updated": rows[-1]["step"] > warmup_steps(config),
        "interval_after": [rows[-1].get(f"evaluate/accuracy_{end}") for end in ("low", "high")],
        **origin,
        "plots": [str(path) for path in plot_run(workdir, about, measure)],
    }
    write_summary(workdir, summary)
    return summary


def describe_result(summary: dict[str, Any], workdir: str) -> str:
    """Some lines: the held-out results before and after, the plots, and the other files.

    Their paths begin with `workdir` as the user gave it, so they can be opened from where it is.
    """
    before, after = (_percent(summary[name]) for name in ("accuracy_before", "accuracy_after"))
    workdir = workdir.rstrip("/")
    plots = [f"{workdir}/{os.path.basename(plot)}" for plot in summary["plots"]]
    files = [METRICS_FILE, "summary.json"]
    if (epath.Path(workdir) / "tensorboard").is_dir():
        files.append("tensorboard/")
    return "\n".join(
        [
            f"held-out {summary['measure']} {before} -> {after}{_interval(summary)} "
            f"in {summary['steps']} steps, {summary['seconds']:.0f} s (seed {summary['seed']})",
            *_untrained(summary),
            f"plots    {', '.join(plots)}",
            f"metrics  {workdir}/{', '.join(files)}",
        ]
    )


def _interval(summary: dict[str, Any]) -> str:
    """The 95% interval of the last evaluation."""
    low, high = summary["interval_after"]
    return "" if low is None or high is None else f" [{low:.1%}, {high:.1%}]"


def _untrained(summary: dict[str, Any]) -> list[str]:
    if summary["actor_updated"]:
        return []
    return ["         these steps updated the critics only: the difference is sampling noise"]


def _percent(reward: float | None) -> str:
    return "no reward" if reward is None else f"{reward:.1%}"
