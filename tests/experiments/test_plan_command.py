"""The command of plans: what needs no compilation is refused before the first one."""

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
def compile_plan(prepared, report):
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
        ((), "give either --topology=SLICE"),
        ((SLICE, "--search=v5e:2x2"), "give either --topology=SLICE"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_compiled(arguments, sentence, odd):
    done = _plan(CONFIG, *[argument.replace("odd", odd) for argument in arguments])
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and sentence in line


def test_a_config_that_can_be_planned_is_compiled():
    done = _plan(CONFIG, SLICE, f"--compare={GRPO}")
    assert "AssertionError: compiled configs/quickstart.py for v5e:2x2" in done.stderr
