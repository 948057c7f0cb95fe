"""The command of plans: what needs no compilation is refused before the first one."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated import environment

ROOT = Path(__file__).parents[2]
CONFIG, SLICE = "--config=configs/quickstart.py", "--topology=v5e:2x2"
GRPO = "configs/quickstart_grpo.py"
# Four simulated devices in place of the compiler's description of a slice, and no compilation.
_PROGRAM = """
import runpy, sys
import jax
from asyppo_jax.planning import plan
def compile_plan(prepared, report, finished):
    raise AssertionError(f"compiled {prepared.name} for {prepared.topology}")
plan.topology_devices = lambda name: jax.devices()
plan.compile_plan = compile_plan
sys.argv[0] = "plan"
runpy.run_module("experiments.plan", run_name="__main__")
"""


def _plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        cwd=ROOT,
        env=environment(4),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def odd(tmp_path):
    """The quickstart with prompts that four chips cannot share."""
    file = tmp_path / "odd.py"
    file.write_text(
        "from configs import quickstart\n\n\n"
        "def get_config():\n"
        "    config = quickstart.get_config()\n"
        "    config.sampling.num_prompts = 24\n"
        "    config.sampling.chunks = 4\n"
        "    return config\n"
    )
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((SLICE, "--phases=values,critics", f"--compare={GRPO}"), f"{GRPO} has none of the phases"),
        ((SLICE, "--compare=odd"), "odd.py on v5e:2x2: config.sampling.num_prompts / chunks is 6"),
        (("--search=v5e:2x2,v5e:2x4", "--compare=odd"), "odd.py on v5e:2x2: config.sampling.num"),
        ((SLICE, "--config.mesh.model=3"), "quickstart.py on v5e:2x2: config.mesh is data=-1"),
        (("--topology=v5p-33",), "'v5p-33' is no accelerator type; v5p has v5p-8"),
        (("--topology=v6p-32",), "'v6p-32' is no accelerator type that is known here"),
        ((), "give either --topology=SLICE"),
        ((SLICE, "--search=v5e:2x2"), "give either --topology=SLICE"),
        (("--tune", "--search=v5e:2x2"), "--tune needs one --topology=SLICE, without --search"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_compiled(arguments, sentence, odd):
    done = _plan(CONFIG, *[argument.replace("odd", odd) for argument in arguments])
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and sentence in line


def test_a_state_that_is_too_large_is_refused_before_anything_is_compiled():
    wide = "--config.algorithm.num_critics=2097152", "--config.sampling.group_size=2097152"
    sizes = [f"--config.batching.{name}_minibatch_size=2097152" for name in ("actor", "critic")]
    more = ["--config.batching.microbatch_size=2097152"]
    done = _plan(CONFIG, SLICE, *wide, *sizes, *more)
    (line,) = done.stderr.splitlines()
    assert "parameters and optimizer states need" in line and "but a chip has 15.75 GiB" in line


def test_a_config_that_can_be_planned_is_compiled():
    done = _plan(CONFIG, SLICE, f"--compare={GRPO}")
    assert "AssertionError: compiled configs/quickstart.py for v5e:2x2" in done.stderr


# The second phase never ends, and does not hear Ctrl-C.
_STUCK = """
import time
from asyppo_jax.planning.plan import PhasePlan
def compile_plan(prepared, report, finished):
    finished["prefill"] = PhasePlan(True, 2.0**30, 1.0, 1.0, 0.0, 0.0, 1e15, 1e12, 2.0, 3.0)
    report("compiling decode")
    time.sleep(60)
"""


def test_ctrl_c_prints_the_finished_phases_and_ends_with_the_status_of_an_interrupted_program():
    start, end = _PROGRAM.split("def compile_plan(prepared, report, finished):\n", 1)
    program = start + _STUCK + end.split("\n", 1)[1]
    running = subprocess.Popen(
        [sys.executable, "-c", program, CONFIG, SLICE],
        cwd=ROOT,
        env=environment(4),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert any("compiling decode" in line for line in running.stderr)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert (
        err.strip()
        == "stopped; tables have the phases that were compiled until now, if there are any"
    )
    assert (
        "prefill fits, 14.8 GiB to spare; decode, values, critics, actor were not compiled" in out
    )
