"""A mesh per phase: sampling, the critics and the actor may divide the same devices differently.

All meshes have the same devices in the same flat order, so a compiled program can read arrays of
one and write arrays of another over the interconnect. `jax.device_put` would read all shards of a
process to its host first.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from asyppo_jax.config import MeshConfig
from asyppo_jax.config.checks import mesh_shape
from asyppo_jax.runtime.sharding import replicated, with_model
from asyppo_jax.types import Experience, Rollout

T = TypeVar("T")


def sampling_mesh(config: MeshConfig, mesh: Mesh) -> Mesh:
    """The mesh of sampling and evaluations; `mesh` is that of the actor, see `make_mesh`."""
    return with_model(mesh, mesh_shape(config, mesh.size, "sampling_model")[1])


def critics_mesh(config: MeshConfig, mesh: Mesh) -> Mesh:
    """The mesh of the critics; `mesh` is that of the actor, see `make_mesh`."""
    return with_model(mesh, mesh_shape(config, mesh.size, "critic_model")[1])


def reshard(tree: Any, shardings: Any, change: Callable[[Any], Any] = lambda tree: tree) -> Any:
    """`change(tree)` with other shardings of the same devices, sent over the interconnect.

    Give the same function `change` each time, or each call compiles a program.
    """
    return jax.jit(change, out_shardings=shardings)(tree)


def to_mesh(batch: T, mesh: Mesh) -> T:
    """A rollout or an experience with its sequences over `data` of a mesh; other arrays replicated.

    If the number of sequences is not a multiple of `data`, they are replicated too.
    """
    if _is_on(batch, mesh):
        return batch
    if not isinstance(batch, Rollout | Experience):
        return reshard(batch, jax.tree.map(lambda _: replicated(mesh), batch))
    return reshard(batch, batch_shardings(batch, mesh))


def batch_shardings(batch: T, mesh: Mesh) -> T:
    """The shardings of a rollout or an experience on a mesh."""
    rows = jax.tree.map(lambda x: _rows(x.shape, 0, mesh), batch)
    if not isinstance(batch, Experience):
        return rows
    by_critic = _rows(batch.values.shape, 1, mesh)
    return rows.replace(values=by_critic, critic_shards=by_critic)


def _rows(shape: tuple[int, ...], axis: int, mesh: Mesh) -> NamedSharding:
    if shape[axis] % mesh.shape["data"]:
        return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def _is_on(tree: Any, mesh: Mesh) -> bool:
    return all(getattr(x.sharding, "mesh", None) == mesh for x in jax.tree.leaves(tree))


def jit_for_first_process(mesh: Mesh, function: Callable[..., T]) -> Callable[..., T]:
    """A compiled program on a mesh with replicated results, which the first process can read."""
    return on_mesh(jax.jit(function, out_shardings=replicated(mesh)), mesh)


def on_mesh(program: Callable[..., T], mesh: Mesh) -> Callable[..., T]:
    """A compiled program that is traced under `mesh`, and whose batches are resharded to it.

    Batches are rollouts, experiences and single arrays (such as a key). All other arguments,
    parameters and optimizer states, must be on the mesh.
    """

    def run(*arguments: Any) -> T:
        with jax.set_mesh(mesh):
            return program(
                *(
                    to_mesh(x, mesh) if isinstance(x, Rollout | Experience | jax.Array) else x
                    for x in arguments
                )
            )

    return run
