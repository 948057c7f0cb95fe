"""What a run's critics know: their values against the mean reward of continuations.

    python -m experiments.value_truth --workdir=RUN [--step=N] [--prompts=24] [--group=8]
        [--continuations=32] [--seed=0] [--output=DIR] [--json]

Samples answers to the run's first held-out problems, and continuations from prefixes at 0, 15, 30,
50, 70 and 90% of each answer, with the run's own sampler. The mean reward of the continuations of a
prefix is its true value, with a known error. Prints by position how far the critics' mean value,
the mean reward of the group's other answers, and a constant are from it. Writes value_truth.json
and value_truth.png.
"""

import json
import sys
from typing import Any

import numpy as np
from absl import app, flags, logging
from etils import epath

from asyppo_jax.config import ConfigError, UserError
from experiments.command_line import (
    parse_flags,
    read_step,
    refuse_words,
    reward_of_run,
    stop,
    use_compile_cache,
)

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory.")
_STEP = flags.DEFINE_string("step", "latest", "The checkpoint: a step, latest, or best.")
_BASE = flags.DEFINE_string(
    "base", None, "The directory of the model that the run started from, if it was moved."
)
_PROMPTS = flags.DEFINE_integer("prompts", 24, "Held-out problems, the first n.", lower_bound=1)
_GROUP = flags.DEFINE_integer("group", 8, "Sampled answers per problem.", lower_bound=2)
_CONTINUATIONS = flags.DEFINE_integer(
    "continuations", 32, "Sampled continuations per prefix.", lower_bound=2
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sampling.")
_GRADER = flags.DEFINE_string(
    "grader", None, "A reward function in place of the run's: math, exact or module:function."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "The directory to write; default: RUN/value_truth/step_N."
)
_JSON = flags.DEFINE_bool("json", False, "Print the results as one line of JSON at the end.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs what each of its threads does
    try:
        refuse_words(argv)
        if not _WORKDIR.value:
            raise ConfigError("--workdir=RUN is missing; give the directory of a run")
        use_compile_cache(None)
        result = measure(_WORKDIR.value)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        stop("stopped; nothing was written")
    print(table(result))
    print(f"written to {result['output']}/value_truth.json and value_truth.png")
    if _JSON.value:
        print(json.dumps(result))


def measure(workdir: str) -> dict[str, Any]:
    # Imported late, so that a wrong flag is reported before the slow imports.
    from asyppo_jax.evaluation.true_values import sample_states
    from asyppo_jax.evaluation.value_errors import value_errors, values_at
    from asyppo_jax.evaluation.value_plot import plot_value_errors
    from asyppo_jax.runs.checkpoint import is_run, read_settings
    from asyppo_jax.runs.load import load_actor, load_critics
    from asyppo_jax.tasks.prompts import make_prompts
    from asyppo_jax.tasks.records import load_records
    from asyppo_jax.tasks.rewards import RewardPool

    if not is_run(workdir):
        raise ConfigError(f"--workdir={workdir} is not a run with checkpoints; give one")
    step = read_step(_STEP.value)
    actor = load_actor(workdir, step=step, base=_BASE.value)
    run = read_settings(workdir)
    critics = (
        load_critics(workdir, step=step, base=_BASE.value) if run.algorithm.num_critics else None
    )
    prompts, _ = make_prompts(
        load_records(actor.config.eval_data),
        actor.tokenizer,
        actor.config.prompt,
        actor.config.value,
    )
    with RewardPool(reward_of_run(run.reward, _GRADER.value)) as pool:
        states = sample_states(
            actor,
            prompts[: _PROMPTS.value],
            pool,
            group_size=_GROUP.value,
            continuations=_CONTINUATIONS.value,
            seed=_SEED.value,
        )
    values = (
        values_at(critics, states)
        if critics
        else np.zeros((0, *states.rollout.completion_mask.shape))
    )
    output = epath.Path(_OUTPUT.value or f"{workdir.rstrip('/')}/value_truth/step_{actor.step}")
    output.mkdir(parents=True, exist_ok=True)
    result = {
        "run": workdir,
        "step": actor.step,
        "prompts": len(states.rollout.rewards) // _GROUP.value,
        "group": _GROUP.value,
        "continuations": _CONTINUATIONS.value,
        "seed": _SEED.value,
        "method": "; ".join(filter(None, [run.algorithm.method, run.options])),
        "output": str(output),
        "positions": value_errors(states, values, run.algorithm),
    }
    (output / "value_truth.json").write_text(json.dumps(result, indent=1) + "\n")
    plot_value_errors(
        result["positions"], output / "value_truth.png", title=f"{workdir}, step {actor.step}"
    )
    return result


def table(result: dict[str, Any]) -> str:
    """The squared errors by position as text, then correlations, bias and what σ knows."""
    critics = range(len(result["positions"][0]["mse_each"]))
    columns = {
        "at": "fraction",
        "n": "distinct",
        "truth": "value_truth",
        "var": "var_truth",
        "critics": "mse_value",
        "group": "mse_group_mean",
        "const": "mse_constant",
        "corr": "correlation",
        "corr(group)": "correlation_group_mean",
        "bias": "bias",
        "sigma": "sigma",
        "rho(sigma,err)": "sigma_rank_correlation",
    }
    lines = [
        f"{result['method']}, step {result['step']}: {result['prompts']} problems x "
        f"{result['group']} answers, {result['continuations']} continuations per prefix",
        "squared errors against the true value, less its sampling error (so they may be below 0): "
        "critics = their mean, group = the mean reward of the group's other answers, const = the "
        "mean reward; n = different prefixes, truth and var = mean and variance of the true values",
        "  ".join(f"{name:>6}" for name in columns),
    ]
    for row in result["positions"]:
        cells = [_cell(name, row[key]) for name, key in columns.items()]
        lines.append("  ".join(cells))
    for k in critics:
        of_each = ", ".join(_number(row["mse_each"][k]) for row in result["positions"])
        lines.append(f"squared error of critic {k} by position: {of_each}")
    if len(critics) > 1:
        lines.append("squared error where a mask drops the token / keeps it, by position:")
        for name, dropped, kept in (
            ("lowest sigma", "mse_lowest_sigma", "mse_above_lowest_sigma"),
            ("highest sigma", "mse_highest_sigma", "mse_below_highest_sigma"),
        ):
            cells = [f"{_number(r[dropped])} / {_number(r[kept])}" for r in result["positions"]]
            lines.append(f"  {name:13}  {',  '.join(cells)}")
    if critics:
        lines.append(_verdict(result["positions"]))
    return "\n".join(lines)


def _verdict(positions: list[dict[str, Any]]) -> str:
    """One sentence on the critics' mean beside the two baselines, from 15% of the answers on."""
    late = [row for row in positions if row["fraction"] >= 0.15] or positions
    error, group, constant = (
        sum(row[name] for row in late) for name in ("mse_value", "mse_group_mean", "mse_constant")
    )
    if constant <= 0:
        return "the states have one value, up to the sampling error: there is nothing to know"
    return (
        f"from 15% on the critics' error is {error / constant:.2f} of that of the mean reward, "
        f"which knows nothing; that of the group's other answers is {group / constant:.2f} of it"
    )


def _cell(name: str, value: Any) -> str:
    formats = {"at": ".0%", "n": "d"}
    text = format(value, formats[name]) if name in formats and value is not None else _number(value)
    return f"{text:>{max(6, len(name))}}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
