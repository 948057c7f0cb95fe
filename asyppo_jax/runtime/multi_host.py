"""Runs with several processes: joining them, and dividing the work of the hosts.

Every process runs the same program over one mesh of all devices, and draws the same prompts in the
same order. Only the sequences of a rollout are divided: a process detokenizes and scores those on
its own devices, and then all processes receive all scores.
"""

import os
import sys
import threading
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from asyppo_jax.config import ConfigError


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float,
) -> None:
    """Joins the processes of a run; call it before any JAX function that needs a device.

    Without arguments the values come from the cluster (Cloud TPU, GKE, Slurm). Elsewhere give the
    address `host:port` of process 0, the number of processes and the index of this process.
    Processes without accelerators communicate by gloo, JAX's default. If not all processes have
    joined after `timeout` seconds, the process prints a one-sentence error and exits with 1.

    Raises:
        ConfigError: the arguments are invalid, or there are none and no cluster is detected.
    """
    arguments = (coordinator_address, num_processes, process_id)
    if arguments != (None, None, None):
        _check_arguments(*arguments)
    # JAX itself would also end the process, but by an abort with a C++ stack trace.
    where = coordinator_address or "the coordinator, process 0"
    watchdog = threading.Timer(timeout, _exit_after_timeout, (where, timeout))
    watchdog.daemon = True
    watchdog.start()
    try:
        jax.distributed.initialize(*arguments, initialization_timeout=int(2 * timeout) + 60)
    except ValueError as error:  # a value that JAX could not detect
        raise ConfigError(
            f"--distributed detects no cluster ({error}); give --coordinator_address, "
            "--num_processes and --process_id"
        ) from error
    finally:
        watchdog.cancel()


def _check_arguments(address: str | None, count: int | None, index: int | None) -> None:
    if address is None or count is None or index is None:
        raise ConfigError(
            "--coordinator_address, --num_processes and --process_id belong together; "
            "give all three, or only --distributed to detect them from the cluster"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            f"--coordinator_address is {address!r}; give host:port, such as 10.0.0.2:8476"
        )
    if not 0 <= index < count:
        raise ConfigError(
            f"--process_id is {index} of --num_processes {count}; count from 0 to {count - 1}"
        )


def _exit_after_timeout(where: str, timeout: float) -> None:
    # The main thread is blocked in C++, so an exception would not reach it.
    print(
        f"error: not all processes of this run connected to {where} within {timeout:g} s; "
        "check that each is started with its own --process_id and can reach that address",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def is_first() -> bool:
    """Whether this is process 0, which prints and writes the files that only one process writes."""
    return jax.process_index() == 0


def own_rows(sharding: Sharding, count: int) -> np.ndarray:
    """Indices of the rows that this process handles, ascending, in an array of `count` rows.

    Each row belongs to exactly one process, among those whose devices have a copy of it. If the
    model axis spans several hosts, several processes have a copy, and the rows alternate between
    them.
    """
    holders: list[set[int]] = [set() for _ in range(count)]  # processes with a copy, per row
    for device, index in sharding.devices_indices_map((count,)).items():
        assert index is not None
        for row in range(count)[index[0]]:
            holders[row].add(device.process_index)
    this_process = jax.process_index()
    rows = [
        row
        for row, processes in enumerate(holders)
        if sorted(processes)[row % len(processes)] == this_process
    ]
    return np.array(rows, np.int64)


def read_rows(x: jax.Array, rows: np.ndarray) -> np.ndarray:
    """The rows `rows` of an array, which must be on this host; only axis 0 may be sharded."""
    local: dict[int, np.ndarray] = {}
    for shard in x.addressable_shards:
        shard_rows = range(x.shape[0])[shard.index[0]]
        if shard_rows.start not in local:  # other devices along the model axis have the same rows
            local.update(zip(shard_rows, np.asarray(shard.data), strict=True))
    return np.array([local[row] for row in rows], x.dtype).reshape(len(rows), *x.shape[1:])


def gather_rows(tree: Any, rows: np.ndarray, count: int) -> Any:
    """Arrays of all `count` rows, equal on all processes, from the rows `rows` of each process."""

    def scatter(local: np.ndarray) -> np.ndarray:
        full = np.zeros((count, *local.shape[1:]), local.dtype)
        full[rows] = local
        return full

    return sum_over_hosts(jax.tree.map(scatter, tree))


def sum_over_hosts(tree: Any) -> Any:
    """The sum of each number or array over all processes; every process must call this."""
    if jax.process_count() == 1:
        return tree
    gathered = multihost_utils.process_allgather(tree)
    return jax.tree.map(
        lambda x, stacked: stacked.sum(axis=0).astype(np.asarray(x).dtype), tree, gathered
    )
