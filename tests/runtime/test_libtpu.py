"""libtpu on a machine without a TPU: it is answered, and then prints nothing."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyppo_jax.runtime.libtpu import answer_libtpu

ANSWERS = ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def without_tpu(monkeypatch):
    """libtpu is installed, and the environment is as `import jax` leaves it without a chip."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    # Set before they are deleted, so that monkeypatch restores them.
    for name in (*ANSWERS, "TPU_ML_PLATFORM"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_libtpu_is_answered_where_there_is_no_tpu(without_tpu, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    answer_libtpu()
    assert os.environ["TPU_ACCELERATOR_TYPE"] == "v5litepod-1"
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "a,b"  # what is set already is kept


@pytest.mark.parametrize("reason", ["jax found a chip", "no decision by jax", "no libtpu"])
def test_nothing_is_set_elsewhere(without_tpu, monkeypatch, reason):
    if reason == "jax found a chip":
        monkeypatch.setenv("TPU_ML_PLATFORM", "JAX")
    elif reason == "no decision by jax":
        monkeypatch.delenv("TPU_SKIP_MDS_QUERY")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer_libtpu()
    assert not set(ANSWERS) & set(os.environ)


_PROGRAMS = {
    "devices of this machine": (
        "from asyppo_jax.config import MeshConfig\n"
        "from asyppo_jax.runtime.sharding import make_mesh\n"
        "assert make_mesh(MeshConfig()).devices.flat[0].platform == 'cpu'"
    ),
    "devices of a slice": (
        "from asyppo_jax.planning.topology import topology_devices\n"
        "assert len(topology_devices('v5p:2x2x2')) == 8"
    ),
}


@pytest.mark.tpu
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is missing: pip install -e '.[tpu]'",
)
@pytest.mark.parametrize("platforms", [None, "cpu"])
@pytest.mark.parametrize("program", _PROGRAMS)
def test_libtpu_prints_nothing(program, platforms):
    unset = (*ANSWERS, "JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY")
    environment = {name: x for name, x in os.environ.items() if name not in unset}
    if platforms:
        environment["JAX_PLATFORMS"] = platforms
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAMS[program]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
