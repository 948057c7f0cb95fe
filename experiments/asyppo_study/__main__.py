"""The pilot: curves, their spread over seeds, and the power that follows from it.

    python -m experiments.asyppo_study --workdir=DIR [--tasks=sums,chains] [--actors=qwen3,llama]
        [--methods=grpo,symmetric_ppo,asyppo] [--seeds=100,101,102] [--steps=100]

Trains each combination once, in this process, and prints one table. A run that is finished is not
trained again, so a command that was stopped goes on. Its seeds are not those of the study.
"""

import itertools
import sys
from pathlib import Path

from absl import app, flags, logging

from asyppo_jax.config import Config, ConfigError, UserError
from experiments.asyppo_study.settings import ACTORS, BASE_CONFIG, METHODS, PILOT_METHODS, TASKS
from experiments.command_line import parse_flags, read_config_file, refuse_words, use_compile_cache

_WORKDIR = flags.DEFINE_string("workdir", None, "The directory of the runs.")
_TASKS = flags.DEFINE_list("tasks", list(TASKS), "Names of settings.TASKS.")
_ACTORS = flags.DEFINE_list("actors", list(ACTORS), "Names of settings.ACTORS.")
_METHODS = flags.DEFINE_list("methods", list(PILOT_METHODS), "Names of settings.METHODS.")
_SEEDS = flags.DEFINE_list("seeds", ["100", "101", "102"], "Seeds.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of each run; default: the base config's.")
_SETTINGS = flags.DEFINE_multi_string("set", [], "section.field=number, for all runs.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    try:
        refuse_words(argv)
        if not _WORKDIR.value:
            raise ConfigError("--workdir=DIR is missing; the runs are written there")
        print(pilot(Path(_WORKDIR.value)))
    except UserError as error:
        sys.exit(f"error: {error}")


def pilot(workdir: Path) -> str:
    """Trains what is missing in `workdir`, and returns the report."""
    configs = run_configs()
    # Imported late, so that a wrong flag is reported before the slow imports.
    from asyppo_jax.train import train
    from experiments.asyppo_study.pilot import RunName, read_curve, report

    use_compile_cache(None)
    curves = {}
    for (task, actor, method, seed), config in configs.items():
        directory = workdir / task / actor / method / f"seed_{seed}"
        train(config, directory)
        curves[RunName(task, actor, method, seed)] = read_curve(directory)
    return report(curves)


def run_configs() -> dict[tuple[str, str, str, int], Config]:
    """The config of each (task, actor, method, seed) that the flags name.

    Raises:
        ConfigError: a name or a setting does not exist, or a seed is no number.
    """
    known = (("tasks", _TASKS.value, TASKS), ("actors", _ACTORS.value, ACTORS))
    for flag, names, settings in (*known, ("methods", _METHODS.value, METHODS)):
        for name in names or []:
            if name not in settings:
                raise ConfigError(f"--{flag} has {name!r}; choose from {', '.join(settings)}")
    for seed in _SEEDS.value or []:
        if not seed.isdecimal():
            raise ConfigError(f"--seeds has {seed!r}; give numbers, such as --seeds=100,101")
    common: dict[str, int | float] = {}
    if _STEPS.value is not None:
        common["num_steps"] = _STEPS.value
    for text in _SETTINGS.value or []:
        name, _, value = text.partition("=")
        try:
            common[name] = int(value) if value.isdecimal() else float(value)
        except ValueError:
            raise ConfigError(f"--set={text} has no number after '='") from None
    names = itertools.product(
        _TASKS.value or [], _ACTORS.value or [], _METHODS.value or [], _SEEDS.value or []
    )
    return {
        (task, actor, method, int(seed)): read_config_file(
            BASE_CONFIG,
            {**TASKS[task], **ACTORS[actor], **METHODS[method], **common, "seed": int(seed)},
        )
        for task, actor, method, seed in names
    }


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
