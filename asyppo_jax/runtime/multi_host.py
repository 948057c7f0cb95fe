"""Many processes, one run: joining them, and what each of them does of the work on the host.

Every process runs the same program over one mesh of all devices, and draws the same prompts in the
same order. What is divided is the rows of a rollout: a process turns those into text and scores
them that its own devices hold, and all learn the scores of all.
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
    """Joins the processes of a run; call it before anything asks for a device.

    Without arguments the cluster tells who is who (Cloud TPU, GKE, Slurm); elsewhere give the
    address `host:port` of process 0, the number of processes and this one's. Processes without
    accelerators talk by gloo, JAX's default. Where they have not all come after `timeout` seconds,
    the process says so in one sentence and ends with 1.

    Raises:
        ConfigError: arguments that cannot be, or no cluster where none are given.
    """
    given = (coordinator_address, num_processes, process_id)
    if given != (None, None, None):
        _check_by_hand(*given)
    # JAX itself would end the process too, but by an abort and a stack of C++.
    where = coordinator_address or "the coordinator, process 0"
    watch = threading.Timer(timeout, _give_up, (where, timeout))
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(*given, initialization_timeout=int(2 * timeout) + 60)
    except ValueError as error:  # what could not be found out
        raise ConfigError(
            f"--distributed finds no cluster here ({error}); give --coordinator_address, "
            "--num_processes and --process_id"
        ) from error
    finally:
        watch.cancel()


def _check_by_hand(address: str | None, count: int | None, index: int | None) -> None:
    if address is None or count is None or index is None:
        raise ConfigError(
            "--coordinator_address, --num_processes and --process_id go together; "
            "give all three, or only --distributed to have the cluster asked"
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


def _give_up(where: str, timeout: float) -> None:
    # The main thread waits in C++ and takes no exception.
    print(
        f"error: the processes of this run did not all meet at {where} within {timeout:g} s; "
        "see that each is started, with its own --process_id, and reaches that address",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def is_first() -> bool:
    """Whether this is the process that prints, and writes what is written once."""
    return jax.process_index() == 0


def own_rows(sharding: Sharding, count: int) -> np.ndarray:
    """The rows of an array of `count` rows that this process answers for, in rising order.

    Each row is one process's, of those whose devices hold it: where the model axis crosses hosts
    several do, and take turns.
    """
    holders: list[set[int]] = [set() for _ in range(count)]
    for device, index in sharding.devices_indices_map((count,)).items():
        assert index is not None
        for row in range(count)[index[0]]:
            holders[row].add(device.process_index)
    me = jax.process_index()
    mine = [r for r, who in enumerate(holders) if sorted(who)[r % len(who)] == me]
    return np.array(mine, np.int64)


def read_rows(x: jax.Array, rows: np.ndarray) -> np.ndarray:
    """Some rows of an array whose other rows may be out of reach; only axis 0 may be sharded."""
    found: dict[int, np.ndarray] = {}
    for shard in x.addressable_shards:
        held = range(x.shape[0])[shard.index[0]]
        if held.start not in found:  # other devices along the model axis hold the same
            found.update(zip(held, np.asarray(shard.data), strict=True))
    return np.array([found[row] for row in rows], x.dtype).reshape(len(rows), *x.shape[1:])


def gather_rows(tree: Any, rows: np.ndarray, count: int) -> Any:
    """Arrays of `count` rows out of what each process has for its own; the same on all of them."""

    def spread(x: np.ndarray) -> np.ndarray:
        whole = np.zeros((count, *x.shape[1:]), x.dtype)
        whole[rows] = x
        return whole

    return sum_over_hosts(jax.tree.map(spread, tree))


def sum_over_hosts(tree: Any) -> Any:
    """The sum of each number or array over the processes, which all must call this alike."""
    if jax.process_count() == 1:
        return tree
    gathered = multihost_utils.process_allgather(tree)
    return jax.tree.map(
        lambda x, whole: whole.sum(axis=0).astype(np.asarray(x).dtype), tree, gathered
    )
