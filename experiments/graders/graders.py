"""The graders that are compared: each decides whether a completion is right for a reference.

Packages of other projects are in a directory of their own. They import what a grader does not need
(verl: torch and ray), so only the module of the grader is loaded from there.
"""

import functools
import importlib
import json
import resource
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from asyppo_jax.tasks.rewards.graders import Score, math

# (completion, reference) -> whether the completion is right
Grade = Callable[[str, str], bool]

# Grader -> the packages that must be in the directory of the other projects, its own first.
PACKAGES = {
    "product": (),
    "math_verify": (),
    "verl_prime": ("verl", "pylatexenc", "antlr4-python3-runtime"),
    "lm_eval_minerva": ("lm-eval", "antlr4-python3-runtime"),
}
_EXAMPLE = ("", r"\boxed{\frac{x^2 - 1}{x - 1}}", json.dumps(["x + 1"]))


@dataclass(frozen=True)
class Grader:
    """A reward function: 1.0 if one reference of the JSON list `answer` accepts the completion.

    The details of the score have the `seconds` of processor time, with those of child processes.
    """

    name: str  # one of `PACKAGES`
    directory: str  # of the packages of other projects

    def __call__(self, problem: str, completion: str, answer: str) -> float:
        grade = _load(self.name, self.directory)
        started = _processor_seconds()
        right = any(grade(completion, reference) for reference in json.loads(answer))
        return Score(float(right), seconds=str(_processor_seconds() - started))

    def __reduce__(self) -> tuple[Any, ...]:
        return _warm, (self.name, self.directory)


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _warm(name: str, directory: str) -> Grader:
    """The grader in a worker process, which has loaded and used it before the first case."""
    grader = Grader(name, directory)
    grader(*_EXAMPLE)
    return grader


def title(name: str, directory: str) -> str:
    """The name of a grader with the version of its package."""
    if name == "product":
        return name
    if name == "math_verify":
        return f"{name} {metadata.version('math-verify')}"
    return f"{name} {_versions(directory)[PACKAGES[name][0]]}"


def missing_packages(name: str, directory: str) -> list[str]:
    """The packages that a grader needs and that are not in the directory."""
    there = _versions(directory)
    return [package for package in PACKAGES[name] if package not in there]


def _versions(directory: str) -> dict[str, str]:
    found = metadata.distributions(path=[directory])
    return {entry.name.lower().replace("_", "-"): entry.version for entry in found}


@functools.cache
def _load(name: str, directory: str) -> Grade:
    return _LOADERS[name](directory)


def _product(directory: str) -> Grade:
    return lambda completion, reference: math("", completion, reference) >= 0.5


def _math_verify(directory: str) -> Grade:
    from math_verify import parse, verify

    def grade(completion: str, reference: str) -> bool:
        return bool(verify(parse(rf"\boxed{{{reference}}}"), parse(completion)))

    return grade


def _verl_prime(directory: str) -> Grade:
    # `verl.utils.metric` imports torch; the grader's own imports want no more than the name.
    metric = types.ModuleType("verl.utils.metric")
    metric.__dict__["Metric"] = object
    sys.modules["verl.utils.metric"] = metric
    prime_math = _import_alone("verl.utils.reward_score.prime_math", directory)
    return lambda completion, reference: bool(prime_math.compute_score(completion, reference)[0])


def _lm_eval_minerva(directory: str) -> Grade:
    minerva = _import_alone("lm_eval.tasks.minerva_math.utils", directory)

    def grade(completion: str, reference: str) -> bool:
        answer = minerva.get_unnormalized_answer(completion)
        if answer == "[invalidanswer]":  # not in the words of its prompt: the last box
            box = minerva.last_boxed_only_string(completion)
            answer = minerva.remove_boxed(box) if box else answer
        texts = (minerva.normalize_final_answer(text) for text in (answer, reference))
        return bool(minerva.is_equiv(*texts))

    return grade


_LOADERS: dict[str, Callable[[str], Grade]] = {
    "product": _product,
    "math_verify": _math_verify,
    "verl_prime": _verl_prime,
    "lm_eval_minerva": _lm_eval_minerva,
}


def _import_alone(name: str, directory: str) -> Any:
    """A module from the directory, without running the `__init__.py` of the packages around it."""
    sys.path.insert(0, directory)
    parts = name.split(".")
    for length in range(1, len(parts)):
        package = types.ModuleType(".".join(parts[:length]))
        package.__path__ = [str(Path(directory, *parts[:length]))]
        sys.modules[package.__name__] = package
    return importlib.import_module(name)
