"""The values that each setting may have: one table, from which docs/configs.md is made too."""

import dataclasses
import math
import numbers
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from asyppo_jax.config.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included unless said otherwise, and `also`.

    Both ends are finite, so NaN and infinity are in no range.
    """

    low: int | float
    high: int | float
    low_open: bool = False
    high_open: bool = False
    also: int | None = None

    def __contains__(self, value: int | float) -> bool:
        above = self.low < value if self.low_open else self.low <= value
        below = value < self.high if self.high_open else value <= self.high
        return value == self.also or (above and below)

    def __str__(self) -> str:
        start, end = "[("[self.low_open], "])"[self.high_open]
        interval = f"{start}{_number(self.low)}, {_number(self.high)}{end}"
        return interval if self.also is None else f"{self.also} or {interval}"


def _number(value: int | float) -> str:
    """10^6 instead of 1e+06; no dot in a whole number."""
    exponent = round(math.log10(value)) if value >= 1e6 else 0
    return f"10^{exponent}" if exponent and value == 10**exponent else str(value)


_FRACTION = Range(0, 1)
_BELOW_ONE = Range(0, 1, high_open=True)
_COEFFICIENT = Range(0, 1000)
_BOUND = Range(0, 10**6)
_POSITIVE = Range(1e-6, 10**6)
_COUNT = Range(1, 10**7)
_COUNT_OR_NONE = Range(0, 10**6)
_LENGTH = Range(1, 10**7)
_STEPS = Range(0, 10**9)
_SEED = Range(0, 2**31 - 1)  # what int32 holds
_TIME_LIMIT = Range(0, 86400, low_open=True)  # seconds; a day

# Class of settings -> {field: its range}. Every number has one; a test demands it. For a tuple, the
# range is that of its elements. What depends on other settings is in `checks` and `value_checks`.
RANGES: dict[str, dict[str, Range]] = {
    "Config": {"seed": _SEED, "num_steps": _STEPS},
    "NetworkConfig": {"num_layers": Range(1, 10**4), "unroll": Range(0, 10**4)},
    "OptimizerConfig": {
        "learning_rate": Range(0, 1000),
        "warmup_steps": _STEPS,
        "decay_steps": _STEPS,
        "final_fraction": _FRACTION,
        "b1": _BELOW_ONE,
        "b2": _BELOW_ONE,
        "eps": Range(1e-30, 1),
        "weight_decay": Range(0, 1000),
        "max_grad_norm": Range(1e-30, 10**9),
    },
    "DataConfig": {"num_records": Range(1, 10**9), "seed": _SEED},
    "PromptConfig": {"max_length": _LENGTH},
    "Truncation": {
        "temperature": Range(0.001, 1000, also=0),
        "top_k": Range(0, 10**9),
        "top_p": Range(1e-6, 1),
        "min_p": _FRACTION,
    },
    "SamplingConfig": {
        "num_prompts": _COUNT,
        "group_size": _COUNT,
        "slots": Range(0, 10**9),
        "chunks": _COUNT,
        "max_rounds": _COUNT,
        "max_completion_length": _LENGTH,
    },
    "RewardConfig": {
        "time_limit": _TIME_LIMIT,
        "num_workers": Range(1, 1000),
        "weights": _BOUND,
    },
    "AlgorithmConfig": {
        "overlong_buffer": Range(0, 10**7),
        "overlong_penalty": Range(0, 1, low_open=True),
        "num_critics": Range(0, 10**7),
        "advantage_mask_fraction": _BELOW_ONE,
        "entropy_mask_fraction": _BELOW_ONE,
        "gamma": _FRACTION,
        "gae_lambda": _FRACTION,
        "length_adaptive_lambda": _BOUND,
        "returns_lambda": _FRACTION,
        "clip_eps_low": _BOUND,
        "clip_eps_high": _BOUND,
        "dual_clip": Range(1, 10**6, low_open=True, also=0),
        "entropy_coef": _COEFFICIENT,
        "positive_nll_coef": _COEFFICIENT,
        "kl_coef": _COEFFICIENT,
        "actor_epochs": _COUNT,
        "critic_epochs": _COUNT,
        "critic_warmup_steps": _STEPS,
        "log_prob_gap_bound": _BOUND,
    },
    "ValueConfig": {
        "bins": Range(2, 10**5),
        "bin_range": Range(-(10**6), 10**6),
        "head_std": _POSITIVE,
        "hl_gauss_std": _POSITIVE,
        "clip_eps": _BOUND,
        "positions": _FRACTION,
        "reference_max_length": _LENGTH,
        "stop_at_explained_variance": Range(-1, 1),
    },
    "BatchingConfig": {
        "actor_minibatch_size": Range(1, 10**9),
        "critic_minibatch_size": Range(1, 10**9),
        "microbatch_size": Range(1, 10**9),
        "critic_microbatch_size": Range(0, 10**9),
        "rows_per_prompt": _COUNT,
        "logits_chunk": _LENGTH,
    },
    "MeshConfig": {
        "data": Range(1, 10**6, also=-1),
        "model": _COUNT,
        "sampling_model": _COUNT_OR_NONE,
        "critic_model": _COUNT_OR_NONE,
    },
    "EvaluationConfig": {"every": _STEPS, "num_samples": _COUNT, "batch_size": _COUNT},
    "CheckpointConfig": {"every": _STEPS, "keep": _COUNT},
    "LogConfig": {
        "samples_every": _STEPS,
        "num_samples": _COUNT_OR_NONE,
        "rollouts_every": _STEPS,
        "rollout_prompts": _COUNT,
        "heldout_prompts": _COUNT_OR_NONE,
    },
    "BenchmarkSettings": {
        "num_samples": _COUNT,
        "max_completion_length": _LENGTH,
        "seed": _SEED,
        "batch_size": _COUNT,
        "slots": Range(0, 10**9),
        "num_problems": _COUNT,
        "time_limit": _TIME_LIMIT,
        "num_workers": Range(1, 1000),
    },
}


def range_of(cls: type, field: str) -> Range | None:
    """The range of a class's field, its own or inherited; None if it is no number."""
    tables = (RANGES.get(c.__name__, {}) for c in cls.__mro__)
    return next((table[field] for table in tables if field in table), None)


def check_fields(section: Any, where: str = "") -> None:
    """Raises `ConfigError` on a field with a value of a wrong type, or one that is not allowed.

    `section` is a dataclass of settings, `where` what is put before its fields' names. Fields that
    are such dataclasses are checked too.
    """
    for name, hint in _hints(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(hint):
            check_fields(value, f"{where}{name}.")
        else:
            _check_type(value, hint, f"{where}{name}")
            if (allowed := range_of(type(section), name)) is not None and value is not None:
                check_range(value, allowed, f"{where}{name}")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def check_range(value: Any, allowed: Range, name: str) -> None:
    """Raises `ConfigError` if a number, or a number in a tuple, is not in the range."""
    for number in value if isinstance(value, tuple) else (value,):
        if number not in allowed:
            given = f"has {number}" if isinstance(value, tuple) else f"is {number}"
            raise ConfigError(f"{name} {given}; it must be {_in(allowed)}")


def _in(allowed: Range) -> str:
    return f"in {allowed}" if allowed.also is None else str(allowed).replace(" or ", " or in ")


# A type of a setting -> (the Python types of its values, what it is called).
_TYPES: dict[type, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "a text"),
}


def type_words(kind: type) -> str:
    """What a value of a type is called in a message, such as "a whole number"."""
    return _TYPES[kind][1] if kind in _TYPES else f"a {kind.__name__}"


def _check_type(value: Any, hint: Any, name: str) -> None:
    arguments, origin = typing.get_args(hint), typing.get_origin(hint)
    if origin is Literal:
        # `in` alone takes True for 1.
        if not any(value == a and type(value) is type(a) for a in arguments):
            allowed = ", ".join(map(repr, arguments))
            raise ConfigError(f"{name} is {value!r}; choose one of {allowed}")
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise ConfigError(f"{name} is {value!r}; it must be a tuple")
        for element in value:
            _check_type(element, arguments[0], name)
    elif origin is types.UnionType:  # X | None
        if value is not None:
            _check_type(value, arguments[0], name)
    else:
        kinds, words = _TYPES[hint]
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            raise ConfigError(f"{name} is {value!r}; it must be {words}")
