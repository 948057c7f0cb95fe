"""Runs other libraries (peers) for comparison: separate programs in their own environments.

A peer (peer_programs/*.py) gets one argument, a JSON file with its job. The file names an .npz of
the same tokens, lengths, old log-probs, advantages and returns, and the directory of the same
weights. The peer warms up and prints {"ready": true, ...}. Then it runs once for every line that it
reads from stdin and prints {"seconds": ...}; it waits while our program runs.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from asyppo_jax.config import ConfigError
from experiments.benchmark.inputs import PAD, Inputs, critic_params, drawn_experience
from experiments.benchmark.setting import Setting

_HERE = Path(__file__).parent / "peer_programs"
_PROGRAMS = {
    ("transformers", "sample"): "transformers_sample.py",
    ("tunix", "sample"): "tunix_sample.py",
    ("tunix", "update"): "tunix_update.py",
    ("torch", "update"): "torch_update.py",
    ("torch_compile", "update"): "torch_update.py",
}


class Peer:
    """A running peer process, warmed up and waiting for the next run."""

    def __init__(
        self, name: str, python: str, phase: str, inputs: Inputs, setting: Setting, cores: int
    ) -> None:
        program = program_of(name, phase)
        self._directory = tempfile.TemporaryDirectory(prefix="asyppo_jax_peer_")
        file = write_job(Path(self._directory.name), name, inputs, setting, cores)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
        try:
            self._process = subprocess.Popen(
                [python, str(program), str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **threads, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            )
        except OSError as error:
            raise ConfigError(f"--peer_python={python} cannot be started: {error}") from error
        self._name, self._python = name, python
        self.ready = self._read()

    def run(self) -> dict[str, Any]:
        """The seconds of one timed run, and other values that the peer reports."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # other lines are messages of libraries
                return json.loads(line)
        raise ConfigError(
            f"the peer {self._name} ended without a result; see its messages above, and check that "
            f"{self._python} has the packages named in experiments/benchmark/README.md"
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # the peer exits at the end of its input
        self._process.wait(timeout=60)
        self._directory.cleanup()


def program_of(name: str, phase: str) -> Path:
    """The peer's program for a phase; raises `ConfigError` if there is none."""
    if (name, phase) not in _PROGRAMS:
        known = ", ".join(f"{n} for {p}" for n, p in _PROGRAMS)
        raise ConfigError(f"there is no peer {name} for {phase!r}; choose among {known}")
    return _HERE / _PROGRAMS[name, phase]


def write_job(directory: Path, name: str, inputs: Inputs, setting: Setting, cores: int) -> Path:
    """Writes the peer's job as JSON, and its arrays as .npz; returns the path of the JSON file."""
    experience = drawn_experience(inputs)
    rollout, algorithm = inputs.rollout, inputs.config.algorithm
    arrays = {
        "tokens": rollout.tokens,
        "mask": rollout.completion_mask,
        "lengths": np.asarray(setting.lengths, np.int64),
        "old_log_probs": rollout.log_probs,
        "advantages": experience.advantages,
        "returns": experience.returns,
        "values": experience.values[0],
        "value_kernel": critic_params(inputs)["value_kernel"][0],
    }
    host_arrays: dict[str, Any] = {k: np.asarray(x) for k, x in arrays.items()}
    np.savez(directory / "arrays.npz", **host_arrays)
    job = {
        "peer": name,
        "arrays": str(directory / "arrays.npz"),
        "model": str(Path(setting.model).resolve()),
        "critic": str(Path(setting.critic or setting.model).resolve()),
        "prompt": setting.prompt,
        "completion": setting.completion,
        "group_size": setting.group_size,
        "microbatch": setting.peer_microbatch,
        "cores": cores,
        "pad": PAD,
        "clip": algorithm.clip_eps_low,
        "entropy_coef": algorithm.entropy_coef,
        "actor_learning_rate": inputs.config.actor_optimizer.learning_rate,
        "critic_learning_rate": inputs.config.critic_optimizer.learning_rate,
        "max_grad_norm": inputs.config.actor_optimizer.max_grad_norm,
    }
    file = directory / "job.json"
    file.write_text(json.dumps(job))
    return file
