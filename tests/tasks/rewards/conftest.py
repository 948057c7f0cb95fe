from pathlib import Path

import pytest

# A reward function that does what the completion says. If `problem` is not empty, it is a file to
# which the process appends its id; writing to a FIFO blocks until somebody reads it.
GRADER = """
import math, os, signal, subprocess, sys

def grade(problem, completion, answer):
    if problem:
        with open(problem, "a") as file:
            print(os.getpid(), file=file)
    match completion:
        case "loop":
            while True:
                pass
        case "grow":  # one call that never releases the interpreter to another thread
            return 9 ** 9 ** 9
        case "child":
            child = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
            with open(answer, "w") as file:
                print(child.pid, file=file)
            while True:
                pass
        case "exit":
            os._exit(0)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raise":
            raise ValueError("not today")
        case "talk":
            print('{"score": 1.0}', flush=True)
            return 0.25 if sys.stdin.read() == "" else 1.0
        case "modules":
            return float(bool({"jax", "numpy", "asyppo_jax"} & set(sys.modules)))
        case "answer length":
            return len(answer) / 1e6
    return {
        "nan": math.nan, "infinite": math.inf, "above": 1.5, "below": -0.5,
        "none": None, "text": "0.5", "list": [0.5], "true": True, "big": 10 ** 400,
    }.get(completion) if completion.isalpha() else float(completion)
"""


@pytest.fixture
def module_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which reward functions can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def grader(module_path: Path) -> str:
    (module_path / "grader_of_the_tests.py").write_text(GRADER)
    return "grader_of_the_tests:grade"
