"""Random bad input: every outcome must be a success or one sentence.

    python -m experiments.torture --fuzz=2000 --seed=0 [--json]

An input is a setting, a flag, a config file, a data file, a model directory or a GGUF file, made by
mutating a good one (`fuzz_inputs`). An outcome is a success, a refusal (a `UserError` whose message
is one line), or a fault: any other exception, a message of several lines, a wall of warnings, or a
slow answer. Input i of seed s is always the same, so a fault can be repeated: `run_input(i, s)`.
"""

import contextlib
import io
import logging
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asyppo_jax.config import UserError
from experiments.torture.fuzz_inputs import KINDS

SLOW_S = 20.0  # an answer that takes longer is a fault; the machine may be busy
MOST_LINES = 4  # of warnings and other output


@dataclass(frozen=True)
class Outcome:
    """What one input led to."""

    index: int
    kind: str  # of input, one of `KINDS`
    change: str  # how the input was made
    result: Literal["ok", "refused", "fault"]
    text: str  # the message, or of a fault what happened and where


def fuzz(count: int, seed: int) -> list[Outcome]:
    """The outcomes of `count` random inputs, in order; only `seed` decides which inputs."""
    return [run_input(index, seed) for index in range(count)]


def run_input(index: int, seed: int) -> Outcome:
    """The outcome of input `index` of a seed."""
    rng = random.Random(f"{seed} {index}")
    kind = list(KINDS)[index % len(KINDS)]
    with tempfile.TemporaryDirectory(prefix="asyppo_fuzz_") as directory:
        change, call = KINDS[kind](rng, Path(directory))
        result, text = _outcome(call)
    change, text = (x.replace(directory, "DIR") for x in (change, text))
    return Outcome(index, kind, f"{change:.300}", result, text)


def _outcome(call: Callable[[], object]) -> tuple[Literal["ok", "refused", "fault"], str]:
    started, output, heard = time.perf_counter(), io.StringIO(), _Heard()
    logger = logging.getLogger("transformers")
    logger.addHandler(heard)
    result, text, caught = "ok", "", []
    try:
        with (
            _without_native_output(),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            warnings.catch_warnings(record=True) as caught,
        ):
            call()
    except UserError as error:
        result, text = "refused", str(error)
        if "\n" in text:
            return "fault", f"a message of several lines: {text!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also a panic of a Rust library, or an exit
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return "fault", f"{type(error).__name__} at {place}: {error!s:.300}"
    finally:
        logger.removeHandler(heard)
    lines = output.getvalue().count("\n") + len(caught) + heard.count
    if lines > MOST_LINES:
        return "fault", f"{lines} lines of output or warnings: {output.getvalue()!r:.300}"
    if (seconds := time.perf_counter() - started) > SLOW_S:
        return "fault", f"an answer after {seconds:.0f} s"
    return result, text


@contextlib.contextmanager
def _without_native_output() -> Iterator[None]:
    """Hides what Rust libraries print, which would stand before the JSON."""
    sys.stdout.flush()
    before, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(nothing)


class _Heard(logging.Handler):
    """Counts warnings of transformers, whose logger holds on to the first stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
