"""Compares options of the critics on the same recorded rollouts, against true values.

    python -m experiments.critics --config=quickstart --workdir=DIR
        [--seeds=0,1,2] [--steps=3,5,7,9] [--variants="as in the paper; head, bce"] [--list]

Records one run of the config per seed (its rollouts, and after each of --steps the true values of
held-out states, see experiments/value_truth.py). Then each variant's critics learn from these
rollouts, and their errors are written to DIR/results.csv. What is there already is not computed
again, so a command that was interrupted goes on. DIR/table.md and DIR/plot.png show the means over
the seeds. --variants are separated by semicolons.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from asyppo_jax.config import Config, ConfigError, UserError
from experiments.command_line import (
    parse_flags,
    read_config_file,
    refuse_words,
    stop,
    use_compile_cache,
)
from experiments.critics.results import Results, table
from experiments.critics.variants import FACTORS, VARIANTS

_CONFIG = flags.DEFINE_string("config", None, "The config file that is recorded, or its name.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The directory of records and results.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of runs and critics.")
_STEPS = flags.DEFINE_list("steps", ["3", "5", "7", "9"], "Steps after which values are measured.")
_VARIANTS = flags.DEFINE_string("variants", "", "Names, separated by semicolons; default: all.")
_PROMPTS = flags.DEFINE_integer("prompts", 24, "Held-out problems.", lower_bound=1)
_GROUP = flags.DEFINE_integer("group", 8, "Answers per problem.", lower_bound=2)
_CONTINUATIONS = flags.DEFINE_integer(
    "continuations", 32, "Continuations per prefix.", lower_bound=2
)
_LIST = flags.DEFINE_bool("list", False, "List the variants and end.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    try:
        refuse_words(argv)
        if _LIST.value:
            print("\n".join(f"{name}: {changes}" for name, changes in VARIANTS.items()))
            return
        for name in ("config", "workdir"):
            if not flags.FLAGS[name].value:
                raise ConfigError(f"--{name} is missing")
        use_compile_cache(None)
        compare(_CONFIG.value or "", Path(_WORKDIR.value or ""))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        stop("stopped; the same command goes on after the last finished variant")


def compare(file: str, workdir: Path) -> None:
    """Records, replays what is missing, and prints the table."""
    seeds, steps = _numbers("seeds", _SEEDS.value), sorted(_numbers("steps", _STEPS.value))
    # Imported late, so that a wrong flag is reported before the slow imports.
    from experiments.critics.plot import plot
    from experiments.critics.record import Measure, record
    from experiments.critics.replay import replay

    measure = Measure(steps, _PROMPTS.value, _GROUP.value, _CONTINUATIONS.value)
    results = Results(workdir / "results.csv")
    for seed in seeds:
        directory = workdir / f"seed_{seed}"
        record(read_config_file(file, {"seed": seed}), directory, steps[-1], measure)
    for name in _chosen():
        for seed in seeds:
            if results.has(name, seed, steps):
                continue
            config = variant_config(file, seed, name)
            rows = list(replay(config, workdir / f"seed_{seed}", steps))
            results.add(name, seed, rows)
            print(f"{name}, seed {seed}: done", file=sys.stderr)
    text = table(results.rows, steps, [name for name in VARIANTS if name in results.names])
    (workdir / "table.md").write_text(text + "\n")
    plot(results.rows, workdir / "plot.png", steps)
    print(text)


def _numbers(flag: str, texts: list[str]) -> list[int]:
    for text in texts:
        if not text.isdecimal():
            raise ConfigError(f"--{flag} takes whole numbers, not {text!r}")
    return [int(text) for text in texts]


def _chosen() -> list[str]:
    names = [name.strip() for name in _VARIANTS.value.split(";") if name.strip()] or list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise ConfigError(f"there is no variant {name!r}; --list shows those that exist")
    return names


def variant_config(file: str, seed: int, name: str) -> Config:
    """The config of a variant; its learning rate is a factor of the file's."""
    changes: dict[str, Any] = dict(VARIANTS[name])
    config = read_config_file(file, {"seed": seed})
    for setting in FACTORS:
        if setting in changes:
            section, field = setting.split(".")
            changes[setting] *= dataclasses.asdict(config)[section][field]
    return read_config_file(file, {"seed": seed, **changes})


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
