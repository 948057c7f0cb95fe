"""XLA's settings for the suite, and the environment of programs on simulated devices."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_QUICK = ["--xla_backend_optimization_level=0"]
# XLA ends the process at a flag that it does not know; these two are those of 0.10.
if version("jaxlib").startswith("0.10."):
    # The kernels that MLIR writes take three times as long to compile as those of plain LLVM.
    _QUICK += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]

# Most of the suite is compilation, of programs that run once: the compiler need not try hard.
FLAGS = " ".join(_QUICK)


def environment(devices: int) -> dict[str, str]:
    """That of a program of its own with so many devices: XLA reads the number once a process.

    A device may wait in two collectives at a time, each in a thread. With one thread per device, as
    by default on few cores, the devices can then wait for each other until XLA ends the process.
    """
    flags = f"{FLAGS} --xla_force_host_platform_device_count={devices}"
    threads = str(2 * devices)  # NPROC is what XLA takes for the number of cores
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": threads}


def run_module(module: str, *arguments: str, devices: int, timeout: float = 600) -> str:
    """What `python -m module` prints on so many simulated devices; fails with what it complains."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parents[1],
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
