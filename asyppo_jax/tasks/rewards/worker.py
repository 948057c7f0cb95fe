"""A worker process of `RewardPool`: reads answers from standard input, writes their scores.

It is run by its path and imports the standard library only, so that a worker does not spend time on
importing JAX or this package. Each message is one line of JSON. The parent sends the setup {path,
functions, time_limit} and receives {"ready": true} or {"error": text}. For each request [problem,
completion, answer, record] it receives {"scores": numbers, "details": texts}, one score per
function, or the first failure, {"crashed": text} or {"bad_score": text}.
"""

import base64
import importlib
import importlib.util
import json
import numbers
import os
import pickle
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Characters of an error without its place, so that a reply fits into the pipe in one write.
MAX_DETAIL = 300


def serve() -> None:
    """Answers the parent until it closes the pipe."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    # A grader that reads input or prints must not touch the pipes.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    _prefer_as_oom_victim()
    setup = json.loads(requests.readline())
    sys.path[:] = setup["path"]
    try:
        functions = [load(source) for source in setup["functions"]]
        _warm_up()
    except Exception as error:
        _send(replies, {"error": _describe(error)})
        return
    _send(replies, {"ready": True})
    for line in requests:
        # If the parent was killed, only this timer ends a grader that never returns. The default
        # action of the signal works even if no Python code can run.
        signal.setitimer(signal.ITIMER_REAL, 2 * setup["time_limit"] + 1)
        reply = grade(functions, json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(replies, reply)


def load(source: dict[str, Any]) -> Callable[..., Any]:
    """A function of (problem, completion, answer, record) from a name or a pickle.

    `source` is {name, example?} or {pickle}, and `takes_record` if the function has that parameter.
    Names are "module:function", or "/a/file.py:function", loaded without its package. An example of
    three arguments is tried at once, so that its imports do not count as grading.
    """
    if "pickle" in source:
        function = pickle.loads(base64.b64decode(source["pickle"]))
    else:
        function = _named(source["name"])
    if "example" in source:
        function(*source["example"])
    if source.get("takes_record"):
        return function
    return lambda problem, completion, answer, record: function(problem, completion, answer)


def _named(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.rpartition(":")
    if not module_name.endswith(".py"):
        return getattr(importlib.import_module(module_name), function_name)
    spec = importlib.util.spec_from_file_location("reward_functions", module_name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{module_name} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function_name)


def _warm_up() -> None:
    """Makes the math grader load what it needs, if a user's function has imported it.

    Otherwise this loading would count against the time limit of the first answer.
    """
    graders = sys.modules.get("asyppo_jax.tasks.rewards.graders")
    if graders is not None:
        graders.math(*graders.MATH_EXAMPLE)


def grade(functions: list[Callable[..., Any]], row: list[Any]) -> dict[str, Any]:
    """The reply for one answer; a score must be a real number in [0, 1].

    The details are those of the first score that has some (`graders.Score`).
    """
    scores: list[float] = []
    details: dict[str, str] = {}
    for function in functions:
        try:
            *arguments, record = row
            score = function(*arguments, record=record)
            details = details or getattr(score, "details", {})
            value = score.item() if hasattr(score, "item") else score  # a NumPy or JAX scalar
            number = float(value) if isinstance(value, numbers.Real) else None
        except Exception as error:
            return {"crashed": _describe(error)}
        if number is None:
            return {"bad_score": f"a {type(value).__name__} is not a number"}
        if not 0 <= number <= 1:  # also true for NaN
            return {"bad_score": f"{number} is not in [0, 1]"}
        scores.append(number)
    return {"scores": scores, "details": details}


def _prefer_as_oom_victim() -> None:
    """Asks Linux to kill this process, not the training run, when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # not Linux: the kernel chooses on its own
        return


def _describe(error: Exception) -> str:
    """The exception and, where its traceback has one, the last line of the user's own code."""
    text = f"{type(error).__name__}: {error}"[:MAX_DETAIL]
    package = f"{Path(__file__).parents[2]}{os.sep}"
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if not f.filename.startswith((package, "<frozen "))]
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    own = [f for f in outside if not f.filename.startswith(libraries)]
    for frame in (own or outside)[-1:]:
        text += f" ({frame.filename}:{frame.lineno})"
    return text


def _send(replies: int, message: dict[str, Any]) -> None:
    try:
        os.write(replies, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:  # the parent is gone
        sys.exit(0)


if __name__ == "__main__":
    serve()
