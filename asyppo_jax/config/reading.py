"""From editable settings, or from the settings of an old run, to a checked `Config`."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, TypeAlias

from ml_collections import ConfigDict, config_dict

from asyppo_jax.config.checks import check_config
from asyppo_jax.config.elsewhere import ELSEWHERE
from asyppo_jax.config.errors import ConfigError
from asyppo_jax.config.ranges import type_words
from asyppo_jax.config.settings import Config

# A `ConfigDict`; typed `Any`, because its fields are known at run time only.
Settings: TypeAlias = Any


class Renamed(NamedTuple):
    """A field that replaced one or two others."""

    old: tuple[str, ...]
    new: str
    value: Callable[..., Any]  # the new value from the old ones


def _zero_stage(gather: str, reduce: str = "microbatch") -> int:
    return {"layer": 3, "minibatch": 2 if reduce == "microbatch" else 1}[gather]


# Settings of runs that an earlier version wrote. Such a run can be resumed.
RENAMED = (
    Renamed(("algorithm.values",), "algorithm.value_timing", str),
    Renamed(("sampling.parts",), "sampling.chunks", int),
    Renamed(("mesh.gather", "mesh.reduce"), "mesh.zero_stage", _zero_stage),
    Renamed(("mesh.gather",), "mesh.zero_stage", _zero_stage),
)


class _Section(ConfigDict):
    """A `ConfigDict` whose errors are one sentence, with the nearest name where one is unknown."""

    _where = ""  # its name in the config with a dot, such as "algorithm."

    def __setattr__(self, name: str, value: Any) -> None:
        if self.is_locked and name not in self:
            raise AttributeError(unknown_setting(f"{self._where}{name}"))
        try:
            super().__setattr__(name, value)
        except TypeError as error:
            raise TypeError(self._wrong_type(name, value)) from error

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name not in self:
            raise AttributeError(unknown_setting(f"{self._where}{name}"))
        return super().__getattr__(name)

    def _is_section(self, name: str) -> bool:
        return self.is_locked and isinstance(self.get(name), _Section)

    def _wrong_type(self, name: str, value: Any) -> str:
        if self._is_section(name):
            section, full = self[name], f"{self._where}{name}"
            example = "path" if "path" in section else next(iter(section))
            return (
                f"config.{full} is a section of settings; set one of them, such as settings.{full}."
                f"{example} = ..., or several with settings.{full}.update({{...}})"
            )
        needed = type_words(self.get_type(name))
        argument = "loss" if name == "loss" else "reward"
        fix = f"; a function is an argument: train(..., {argument}=f)" if callable(value) else ""
        return f"config.{self._where}{name} is {value!r}; it must be {needed}{fix}"

    def __getitem__(self, name: str) -> Any:
        if "." not in name and name not in self:
            raise KeyError(unknown_setting(f"{self._where}{name}"))
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Any) -> None:
        if self.is_locked and "." not in name and name not in self:
            raise KeyError(unknown_setting(f"{self._where}{name}"))
        if self._is_section(name) and not isinstance(value, _Section):
            raise TypeError(self._wrong_type(name, value))
        super().__setitem__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy
        super().__setstate__(state)
        object.__setattr__(self, "_where", state.get("_where", ""))


def default_config() -> Settings:
    """The defaults of `Config` as a locked `ConfigDict`, which a file in `configs/` edits.

    An unknown name raises `AttributeError` there.
    """
    return _to_config_dict(Config(), "")


def _to_config_dict(section: Any, where: str) -> ConfigDict:
    hints = typing.get_type_hints(type(section))
    values = {}
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        if dataclasses.is_dataclass(value):
            values[f.name] = _to_config_dict(value, f"{where}{f.name}.")
        elif value is None:  # an optional field keeps its type, so that flags can set it
            values[f.name] = config_dict.placeholder(_optional_type(hints[f.name]))
        else:
            values[f.name] = value
    settings = _Section(values)
    object.__setattr__(settings, "_where", where)
    return settings.lock()


def _optional_type(hint: Any) -> type:
    return next(t for t in typing.get_args(hint) if t is not types.NoneType)


def from_config_dict(values: Settings) -> Config:
    """Freezes an edited `default_config()`; raises `ConfigError` on a setting that cannot work."""
    config = _from_config_dict(Config, values, "config")
    check_config(config)
    return config


def from_dict(values: Any) -> Config:
    """The config of a run from its `config.json`: `dataclasses.asdict`, with lists for tuples.

    A missing field has its default. Names of earlier versions (`RENAMED`) are understood. Raises
    `ConfigError` on a setting that this version does not know or that cannot work.
    """
    return from_config_dict(_with_new_names(values))


def _with_new_names(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"settings are sections by name, not {values!r:.40}")
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for old, new, convert in RENAMED:
        olds = [_split(name) for name in old]
        if all(field in _section(values, section) for section, field in olds):
            section, field = _split(new)
            given = [values[s].pop(f) for s, f in olds]
            try:
                values[section].setdefault(field, convert(*given))
            except (KeyError, TypeError, ValueError) as error:
                text = f"config.{old[0]} is {given[0]!r}, which is none of its values"
                raise ConfigError(text) from error
    algorithm = _section(values, "algorithm")
    # Before estimators had names, a run without critics was GRPO.
    if "advantages" not in algorithm and algorithm.get("num_critics") == 0:
        algorithm["advantages"] = "grpo"
    return values


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A section, empty if it is missing or (in a damaged file) something else."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _split(name: str) -> tuple[str, str]:
    section, _, field = name.partition(".")
    return section, field


def unknown_setting(name: str) -> str:
    """One sentence on a name "section.field" that is not a setting: its new name, or the nearest.

    A name without its section, all that some errors of a config file give, may be an earlier field.
    """
    name = " ".join(name.split())
    for olds, new, _ in RENAMED:
        for old in olds:
            if name in (old, _split(old)[1]):
                return f"config.{old} is now config.{new}; docs/configs.md has its values"
    if there := ELSEWHERE.get(name) or ELSEWHERE.get(name.rpartition(".")[2]):
        return f"config.{name} is not a setting; here it is {there}"
    names = setting_names()
    if own := [full for full in names if full.startswith(f"{name}.")]:  # the name of a section
        return f"config.{name} is not a setting; did you mean config.{own[0]}?"
    candidates = {full: full for full in names}
    if "." not in name:
        sections = {full.partition(".")[0] for full in names} - {name}
        fields = {full.rpartition(".")[2]: full for full in reversed(names)}
        candidates |= {section: section for section in sections} | fields
    nearest = difflib.get_close_matches(name, candidates, n=1)
    hint = "docs/configs.md lists all settings"
    if nearest:
        hint = f"did you mean config.{candidates[nearest[0]]}?"
    return f"config.{name} is not a setting; {hint}"


def setting_names() -> tuple[str, ...]:
    """The names "section.field" of all settings."""
    return tuple(name for name, _ in _settings(Config))


def flatten(config: Config) -> dict[str, Any]:
    """The settings {"section.field": value} of a config."""

    def items(settings: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in settings.items():
            if isinstance(value, dict):
                yield from items(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(items(dataclasses.asdict(config), ""))


def _settings(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The name "section.field" of each setting, and its type as it is written."""
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from _settings(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def _from_config_dict(cls: type, values: ConfigDict | dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(unknown_setting(f"{where}.{unknown[0]}".removeprefix("config.")))
    arguments = {}
    for name, hint in hints.items():
        if name not in values:
            continue
        value = values[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, ConfigDict | dict):
                raise ConfigError(f"{where}.{name} is {value!r}; it is a section of settings")
            value = _from_config_dict(typing.cast(type, hint), value, f"{where}.{name}")
        arguments[name] = tuple(value) if isinstance(value, list) else value
    return cls(**arguments)


def may_change() -> frozenset[str]:
    """The names "section.field" of the settings that may differ when a run is resumed."""
    settings = _settings(Config)
    # `MayChange` of `settings` is an annotation.
    return frozenset(name for name, hint in settings if typing.get_origin(hint) is Annotated)
