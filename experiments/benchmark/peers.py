"""Peers beside us: programs of their own in environments of their own, fed through files.

A peer (peers/*.py) gets one argument, a JSON file that says what to do and names an .npz of the
same tokens, lengths, old log-probs, advantages and returns, and reads the same weights. It warms
up, prints {"ready": true, ...}, and then runs once for every line that it reads, printing
{"seconds": ...} each time; it waits while we run.
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
    """A started peer, warmed up and waiting."""

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
        """One timed run: its seconds, and what the peer tells besides."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries talk on the same stream
                return json.loads(line)
        raise ConfigError(
            f"the peer {self._name} ended before its answer; what it said is above. Does "
            f"{self._python} have its packages? See experiments/benchmark/README.md"
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # it ends when it has read all
        self._process.wait(timeout=60)
        self._directory.cleanup()


def program_of(name: str, phase: str) -> Path:
    """The peer's program; raises `ConfigError` where it has none for the phase."""
    if (name, phase) not in _PROGRAMS:
        known = ", ".join(f"{n} for {p}" for n, p in _PROGRAMS)
        raise ConfigError(f"{name} cannot be run beside {phase!r}; there are {known}")
    return _HERE / _PROGRAMS[name, phase]


def write_job(directory: Path, name: str, inputs: Inputs, setting: Setting, cores: int) -> Path:
    """The peer's job: sizes and places as JSON, arrays beside it."""
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
    host: dict[str, Any] = {k: np.asarray(x) for k, x in arrays.items()}
    np.savez(directory / "arrays.npz", **host)
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
