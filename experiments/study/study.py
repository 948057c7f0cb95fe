"""What a study compares: a document in configs/studies/, and the runs that it asks for."""

import ast
import dataclasses
import json
import re
import runpy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from asyppo_jax.config import Config, ConfigError
from asyppo_jax.config.reading import flatten, may_change, setting_names, unknown_setting
from experiments.command_line import read_config_file
from experiments.main import CONFIGS

Changes = Mapping[str, Any]  # {"section.field": value}

# What results.csv has of every run, where the run has it.
METRICS = (
    "evaluate/accuracy",
    "evaluate/completion_length_mean",
    "evaluate/truncated_fraction",
    "rollout/reward_mean",
    "rollout/completion_length_mean",
    "rollout/groups_without_spread",
    "rollout/log_prob_gap",
    "actor/entropy",
    "actor/clip_fraction",
    "actor/grad_norm",
    "actor/kl",
    "critic/loss",
    "critic/grad_norm",
    "critic/explained_variance",
    "ensemble/value_std_p50",
    "time/sample_s",
    "time/score_s",
    "time/update_s",
    "time/evaluate_s",
)
# Of all runs, unless the study sets them: nobody looks at the logs of hundreds of runs.
_LOGS = {"log.tensorboard": False, "log.samples_every": 0}


@dataclass(frozen=True)
class Only:
    """Where a method runs, if not everywhere; empty: all of them."""

    tasks: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Study:
    """Tasks x actors x methods x seeds; a run's config is `base` with the changes of all four.

    Where two of them change the same setting, the method wins over the actor, and the actor over
    the task.
    """

    name: str
    base: str  # a config file or its name
    tasks: Mapping[str, Changes]
    actors: Mapping[str, Changes]
    methods: Mapping[str, Changes]
    seeds: Sequence[int]
    only: Mapping[str, Only] = field(default_factory=dict)  # of some methods
    reference: str = ""  # the method that others are compared with; empty: the first
    # Methods that a figure shows together, by the title of their panel; empty: all in one.
    panels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    metric: str = "evaluate/accuracy"  # what the report compares
    final_evaluations: int = 1  # a run's final value is the mean of so many last evaluations
    metrics: Sequence[str] = METRICS
    # Threads of each run's computations. Results depend on their number in rounding, so it is part
    # of the study and not a flag. Tiny models gain next to nothing from a second one.
    threads: int = 1


class StudyRun(NamedTuple):
    """One run of a study."""

    task: str
    actor: str
    method: str
    seed: int
    config: Config

    @property
    def setting(self) -> tuple[str, str, str]:
        """What runs of different seeds share: such runs share their compiled programs."""
        return self.task, self.actor, self.method

    @property
    def name(self) -> str:
        return f"{self.task} / {self.actor} / {self.method} / seed {self.seed}"

    @property
    def folder(self) -> str:
        """Its workdir, relative to that of the study."""
        return "/".join(["runs", *map(file_name, self.setting), f"seed_{self.seed}"])


def file_name(name: str) -> str:
    """A name as part of a path: small letters, digits and dots, joined by _."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_.")


def read_study(file: str) -> Study:
    """The study in a file, or in configs/studies/NAME.py.

    Raises:
        ConfigError: there is no such file, it has a mistake, or its parts do not fit together.
    """
    path = Path(file)
    if not path.is_file() and "/" not in file:
        path = CONFIGS / "studies" / f"{file.removesuffix('.py')}.py"
    if not path.is_file():
        names = sorted(p.stem for p in (CONFIGS / "studies").glob("*.py"))
        raise ConfigError(
            f"the file {file} of --study does not exist; configs/studies/ has {', '.join(names)}"
        )
    try:
        _check_keys(path)
        study = runpy.run_path(str(path))["get_study"]()
    except KeyError as error:
        raise ConfigError(f"{path} cannot be read: there is no {error}") from error
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    if not isinstance(study, Study):
        raise ConfigError(f"get_study of {path} returns a {type(study).__name__}; return a Study")
    _check(study)
    return study


def _check_keys(path: Path) -> None:
    """Python takes the last of two equal keys in a dict without a word."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if again := _repeated(keys):
                raise ConfigError(f"{path}, line {node.lineno}: {again!r} is there twice")


def _check(study: Study) -> None:
    """Raises `ConfigError` if parts of a study do not fit together."""
    if not study.name:
        raise ConfigError("the study has no name; give Study(name=...)")
    for what in ("tasks", "actors", "methods", "seeds", "metrics"):
        values = list(getattr(study, what))
        if not values:
            raise ConfigError(f"the study {study.name} has no {what}; give at least one")
        if (again := _repeated(values)) is not None:
            raise ConfigError(f"the study {study.name} has {again!r} twice in its {what}")
        names = {} if what in ("seeds", "metrics") else {v: file_name(v) for v in values}
        if (again := _repeated(names.values())) is not None:
            both = " and ".join(repr(name) for name in names if names[name] == again)
            raise ConfigError(
                f"{both} of the study's {what} would have the same folder, {again!r}; rename one"
            )
    if study.metric not in study.metrics:
        raise ConfigError(f"the study compares {study.metric!r}, which is not in its metrics")
    for what in ("threads", "final_evaluations"):
        if getattr(study, what) < 1:
            raise ConfigError(f"the study has {what} = {getattr(study, what)}; give 1 or more")
    named = {"reference": [study.reference] if study.reference else [], "only": study.only}
    named |= {f"panels[{title!r}]": methods for title, methods in study.panels.items()}
    for where, methods in named.items():
        _check_known(f"{where} of the study", methods, "method", study.methods)
    for method, only in study.only.items():
        where = f"only[{method!r}] of the study"
        _check_known(where, only.tasks, "task", study.tasks)
        _check_known(where, only.actors, "actor", study.actors)
        _check_known(where, only.seeds, "seed", study.seeds)


def _check_known(where: str, names: Iterable[Any], what: str, known: Iterable[Any]) -> None:
    for name in names:
        if name not in known:
            listed = ", ".join(map(str, known))
            raise ConfigError(f"{where} names the {what} {name!r}, which is not one of {listed}")


def _repeated(values: Iterable[Any]) -> Any:
    return next((value for value, count in Counter(values).items() if count > 1), None)


def runs_of(study: Study) -> list[StudyRun]:
    """All runs in the order in which they start: seeds outermost, methods innermost.

    A study that is stopped early then has all methods with fewer seeds, and not fewer methods:
    differences paired by seed exist from the first seed on, and their intervals get narrower.

    Raises:
        ConfigError: a setting is unknown or cannot work; the message names the run.
    """
    settings = [
        (task, actor, method, _config(study, task, actor, method))
        for task in study.tasks
        for actor in study.actors
        for method in study.methods
        if _runs_there(study, task, actor, method)
    ]
    return [
        StudyRun(task, actor, method, seed, dataclasses.replace(config, seed=seed))
        for seed in study.seeds
        for task, actor, method, config in settings
        if seed in (_only(study, method).seeds or study.seeds)
    ]


def _only(study: Study, method: str) -> Only:
    return study.only.get(method, Only())


def _runs_there(study: Study, task: str, actor: str, method: str) -> bool:
    only = _only(study, method)
    return task in (only.tasks or study.tasks) and actor in (only.actors or study.actors)


def _config(study: Study, task: str, actor: str, method: str) -> Config:
    changes: dict[str, Any] = dict(_LOGS)
    of_parts = {f"task {task!r}": study.tasks[task], f"actor {actor!r}": study.actors[actor]}
    for part, changed in {**of_parts, f"method {method!r}": study.methods[method]}.items():
        if "seed" in changed:
            raise ConfigError(f"the {part} changes seed; give seeds to the study")
        for name in changed:
            if name not in setting_names():
                raise ConfigError(f"the {part} of the study: {unknown_setting(name)}")
        changes |= changed
    try:
        return read_config_file(study.base, changes)
    except ConfigError as error:
        raise ConfigError(f"the runs {task} / {actor} / {method}: {error}") from error


def differences(config: str, base: str) -> dict[str, Any]:
    """The changes that make config file `base` equal to config file `config`: a method from both.

    Raises:
        ConfigError: one of them cannot be read.
    """
    return changed_settings(read_config_file(config), read_config_file(base))


def changed_settings(config: Config, base: Config | None = None) -> dict[str, Any]:
    """The settings of `config` that are not those of `base`; None: not the defaults."""
    here = flatten(base or Config())
    return {name: value for name, value in flatten(config).items() if here[name] != value}


def settings_of(study: Study) -> dict[str, dict[str, Any]]:
    """What runs are made with, for study.json: all of the base config, and what each part changes.

    The base config's are there even where they are defaults, because a default can change. Settings
    that may change in a run are left out, as those of logs and checkpoints.
    """
    free = may_change() | {"seed"}
    parts = {
        "base": {"": flatten(read_config_file(study.base))},
        "tasks": study.tasks,
        "actors": study.actors,
        "methods": study.methods,
    }
    settings = {
        part: {
            name: {setting: x for setting, x in values.items() if setting not in free}
            for name, values in of_part.items()
        }
        for part, of_part in parts.items()
    }
    return json.loads(json.dumps(settings))  # tuples as the lists that the file has
