"""What happens to the workers when a signal ends the run."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell starts background processes, such as these tests, with SIGINT ignored.
RUN = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from asyppo_jax.config import RewardConfig
from asyppo_jax.tasks.rewards import RewardPool

config = RewardConfig(function="endless:grade", time_limit=float(sys.argv[1]), num_workers=1)
with RewardPool(config) as pool:
    try:
        pool.score([""], ["loop"], [""])
    except KeyboardInterrupt:
        print(pool.score([""], ["0.5"], [""]).rewards.tolist())
"""
# A worker prints to the run's standard error, which closes when the last process has ended.
ENDLESS = """
def grade(problem, completion, answer):
    while completion == "loop":
        if not problem:
            problem = "busy"
            print(problem, flush=True)
    return float(completion)
"""


@pytest.fixture
def run(request: pytest.FixtureRequest, module_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that scores an endless answer; the parameter is its time limit."""
    (module_path / "endless.py").write_text(ENDLESS)
    (module_path / "run.py").write_text(RUN)
    with subprocess.Popen(
        [sys.executable, "run.py", str(request.param)],
        cwd=module_path,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "busy\n"
        yield process
        process.kill()


@pytest.mark.parametrize("run", [100.0], indirect=True)
def test_the_pool_can_score_and_close_after_ctrl_c(run: subprocess.Popen[str]):
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=180) == ("[0.5]\n", "")
    assert run.returncode == 0


@pytest.mark.parametrize("run", [2.0], indirect=True)
def test_an_endless_grader_ends_soon_after_its_run_was_killed(run: subprocess.Popen[str]):
    run.kill()
    run.communicate(timeout=180)  # ends when no process holds the pipes any more
