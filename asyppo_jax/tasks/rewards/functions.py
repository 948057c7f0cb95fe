"""Which functions score an answer: by their names in `config.reward`, or given as objects."""

import base64
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from asyppo_jax.config import ConfigError, DataConfig, RewardConfig
from asyppo_jax.config.functions import function_name, named_function, names_a_module
from asyppo_jax.tasks.rewards import graders, reasoning_tasks

# (problem, completion, answer) -> [0, 1]; with a parameter `record` also the record's columns
RewardFunction = Callable[..., float]
_BUILTIN: dict[str, RewardFunction] = {
    "math": graders.math,
    "exact": graders.exact,
    "reasoning_gym": reasoning_tasks.reasoning_gym,
    "reasoning_gym_partial": reasoning_tasks.reasoning_gym_partial,
}
_GIVE_THE_FUNCTION = (
    "give the function itself as train(..., reward=function) or RewardPool(config, function)"
)


class Reward(NamedTuple):
    """A function that scores answers, its weight, and what a worker process needs to load it."""

    name: str  # short, for metrics
    function: RewardFunction
    weight: float  # of all rewards they add up to 1
    worker: dict[str, Any]  # see `worker.load`
    takes_record: bool


def find_rewards(
    config: RewardConfig,
    given: RewardFunction | Sequence[RewardFunction] | None = None,
    *,
    setting: str = "config.reward.function",
) -> list[Reward]:
    """The rewards that a config names, separated by commas, or the functions given instead.

    `setting` is what the messages call the names.

    Raises:
        ConfigError: a name has no function, a function does not take the arguments of a reward, or
            the weights do not fit.
    """
    if given is None:
        if not isinstance(config.function, str):
            raise ConfigError(
                f"{setting} is {config.function!r}, but takes a name; {_GIVE_THE_FUNCTION}"
            )
        names = [name.strip() for name in config.function.split(",")]
        functions = [resolve_reward(name, setting) for name in names]
        workers = [_by_name(name) for name in names]
    else:
        functions = reward_functions(given)
        names = [function_name(function) for function in functions]
        workers = [_by_value(function) for function in functions]
    weights = _weights(config, len(functions))
    short = [name.replace(":", ".").rpartition(".")[2] for name in names]
    labels = short if len(set(short)) == len(short) else names
    takes_record = [_takes_record(*pair) for pair in zip(functions, names, strict=True)]
    return [
        Reward(*fields)
        for fields in zip(labels, functions, weights, workers, takes_record, strict=True)
    ]


def reward_functions(given: Any) -> list[RewardFunction]:
    """One function or a list of functions as a list; raises `ConfigError` on anything else."""
    functions = [*given] if isinstance(given, list | tuple) else [given]
    if not functions or not all(map(callable, functions)):
        raise ConfigError(
            f"reward is {given!r}; give one function or a list of functions, or their names as "
            "config.reward.function"
        )
    return functions


def resolve_reward(name: str, setting: str = "config.reward.function") -> RewardFunction:
    """The function for a name of `_BUILTIN` or "module:function"; else raises `ConfigError`."""
    if name in _BUILTIN:
        return _BUILTIN[name]
    if not names_a_module(name):
        raise ConfigError(
            f"{setting} is {name!r}, but worker processes cannot import functions of the main "
            "script, of a notebook or inside another function; move the function to a module of "
            f"its own, or {_GIVE_THE_FUNCTION}"
        )
    return named_function(name, setting, ", ".join(f'"{x}"' for x in _BUILTIN))


def check_reward_of_task(function: str, data: DataConfig) -> None:
    """Raises `ConfigError` if `math` or `exact` cannot grade the reasoning-gym task of `data`."""
    names = [name.strip() for name in function.split(",")]
    one_answer = "math" in names and data.path not in reasoning_tasks.MATH_TASKS
    if data.source == "reasoning_gym" and (one_answer or "exact" in names):
        raise ConfigError(
            f"config.reward.function is {function!r}, which compares with one answer, but the task "
            f"{data.path} has its own rule for right answers; set config.reward.function to "
            "reasoning_gym, or to reasoning_gym_partial for partial credit (math can grade "
            f"{', '.join(reasoning_tasks.MATH_TASKS)})"
        )


def _by_name(name: str) -> dict[str, Any]:
    if name in ("math", "exact"):
        return {"name": f"{graders.__file__}:{name}", "example": graders.MATH_EXAMPLE}
    if name in _BUILTIN:
        return {"name": f"{reasoning_tasks.__file__}:{name}"}
    return {"name": name}


def _by_value(function: RewardFunction) -> dict[str, Any]:
    """For functions of a notebook, which no other process can import."""
    import cloudpickle

    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if module is not None and module.__spec__ is None:  # made by runpy: no worker can import it
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled = cloudpickle.dumps(function)
    except Exception as error:  # whatever an object raises that cannot be pickled
        raise ConfigError(
            f"the reward {function_name(function)} cannot be sent to its worker processes "
            f"({error}); open files and connections inside of it"
        ) from error
    return {"pickle": base64.b64encode(pickled).decode()}


def _weights(config: RewardConfig, count: int) -> list[float]:
    weights = config.weights or (1.0,) * count
    if len(weights) != count:
        raise ConfigError(
            f"config.reward.weights has {len(weights)} numbers for {count} reward functions; give "
            "one number each, or none for equal weights"
        )
    total = math.fsum(weights)
    if total == 0:
        raise ConfigError(f"config.reward.weights is {weights}; make at least one larger than 0")
    return [weight / total for weight in weights]


def _takes_record(function: RewardFunction, name: str) -> bool:
    """Whether the function has a parameter `record`; raises `ConfigError` on other arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function in C that does not say what it takes
        return False
    takes_record = "record" in signature.parameters
    try:
        signature.bind("", "", "", **({"record": {}} if takes_record else {}))
    except TypeError as error:
        raise ConfigError(
            f"the reward {name}{signature} cannot be called as function(problem, completion, "
            f"answer) ({error}); it scores one answer: give it these three, and "
            "`record` for the columns of the data"
        ) from error
    return takes_record
