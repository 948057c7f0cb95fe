"""The mesh, and the one table from logical axis names to mesh axes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asyppo_jax.config import ConfigError, MeshConfig
from asyppo_jax.types import Params

# Parameters are sharded over `data` along their embed axis (FSDP) and over `model` along heads, mlp
# and vocabulary (tensor parallelism). Layers and critics stay whole: both are looped or vmapped.
RULES: tuple[tuple[str, str | None], ...] = (
    ("batch", "data"),
    ("time", None),
    # What is kept of every layer for the backward pass: whole on each device of `model` it would be
    # the largest thing in memory (sequence parallelism, arXiv 2205.05198).
    ("kept_time", "model"),
    ("embed", "data"),
    ("heads", "model"),
    ("kv_heads", "model"),
    ("head_dim", None),
    ("mlp", "model"),
    ("vocab", "model"),
    ("layers", None),
    ("critic", None),
)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh [data, model] over all devices, or over those given.

    Raises:
        ConfigError: if the sizes do not multiply to the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    data = count // config.model if config.data == -1 else config.data
    if data * config.model != count:
        raise ConfigError(
            f"config.mesh is data={config.data}, model={config.model}, but there are {count} "
            "devices; make data * model equal to that, or data = -1"
        )
    # Auto, not the default Explicit: with explicit axes FSDP's matmuls raise.
    auto = (AxisType.Auto, AxisType.Auto)
    shape, names = (data, config.model), ("data", "model")
    try:
        return jax.make_mesh(shape, names, auto, devices=devices)
    except NotImplementedError:
        # A torus whose sides are no products of the sizes (4 x 4 for 2 x 8): one is divided.
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, names, axis_types=auto)


def param_shardings(boxed: Params, mesh: Mesh) -> Params:
    """A sharding for every leaf of a boxed (axis-named) parameter tree, by `RULES`.

    An axis that its mesh axis does not divide evenly (say 3 key heads over 2) stays whole.
    """
    specs = meta.get_partition_spec(boxed)
    shapes = meta.unbox(boxed)

    def one(spec: PartitionSpec, leaf) -> NamedSharding:
        return NamedSharding(mesh, _placement(tuple(spec), leaf.shape, mesh.abstract_mesh))

    return jax.tree.map(one, specs, shapes, is_leaf=lambda x: isinstance(x, PartitionSpec))


def gather_params(params: Params, boxed: Params) -> Params:
    """Inside jit: parameters whole over `data`, still spread over `model` (see `RULES`).

    A loop reads every parameter at every turn; gathered layer by layer, as FSDP does, they would
    cross the network each time.
    """
    return _constrain_params(params, boxed, whole="embed")


def spread_params(params: Params, boxed: Params) -> Params:
    """Inside jit: parameters, or gradients of gathered ones, where they rest (see `RULES`)."""
    return _constrain_params(params, boxed)


def _constrain_params(params: Params, boxed: Params, whole: str = "") -> Params:
    if jax.sharding.get_abstract_mesh().empty:
        return params
    specs = meta.get_partition_spec(boxed)

    def one(spec: PartitionSpec, x):
        return constrain(x, [None if name == whole else name for name in tuple(spec)])

    return jax.tree.map(one, specs, params, is_leaf=lambda x: isinstance(x, PartitionSpec))


def constrain(x: jax.Array, names: Sequence[str | None]) -> jax.Array:
    """Inside jit: an array placed by the names of its axes; without a mesh, left alone."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, _placement(names, x.shape, mesh))


def _placement(names: Sequence[str | None], shape: tuple[int, ...], mesh) -> PartitionSpec:
    """`RULES` for one array; an axis that its mesh axis does not divide evenly stays whole.

    So does one whose mesh axis a surrounding `shard_map` has already divided.
    """
    rules = dict(RULES)
    axes, used = [], set(mesh.manual_axes)
    for name, size in zip(names, shape, strict=True):
        axis = rules[name] if name is not None else None
        if axis in used or axis is None or size % mesh.shape[axis]:
            axis = None
        else:
            used.add(axis)
        axes.append(axis)
    return PartitionSpec(*axes)


def like_params(tree, params: Params, shardings: Params, mesh: Mesh):
    """Shardings for optimiser state: leaves at a parameter's place take its sharding, others none.

    A moment is recognised by its path ending in the parameter's path and by its shape.
    """
    by_path = {
        jax.tree_util.keystr(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
        )
    }
    replicated = NamedSharding(mesh, PartitionSpec())

    def one(path, leaf):
        for start in range(len(path)):
            found = by_path.get(jax.tree_util.keystr(path[start:]))
            if found and found[0] == leaf.shape:
                return found[1]
        return replicated

    return jax.tree_util.tree_map_with_path(one, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over `data`, everything else whole."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain_batch(tree, axis: int = 0):
    """Inside jit: rows (along `axis`) over `data` where the mesh has it and it divides them."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or "data" not in mesh.axis_names or "data" in mesh.manual_axes:
        return tree

    def one(x):
        if x.ndim <= axis or x.shape[axis] % mesh.shape["data"]:
            return x
        spec = PartitionSpec(*[None] * axis, "data")
        return jax.lax.with_sharding_constraint(x, spec)

    return jax.tree.map(one, tree)


def by_data_shard(
    function: Callable[..., Any], num_rows: int, *, axis: int = 0
) -> Callable[..., Any]:
    """Inside jit: function(params, *rows) run by each device of `data` on its own rows alone.

    Rows go in along `axis` and come out along the first one; `params` are whole over `data`, and
    all axes but `data` are the partitioner's. Without a mesh, or where `data` does not divide
    `num_rows`, the function itself. Loops and branches in it must follow `largest_of_shards`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["data"] == 1 or num_rows % mesh.shape["data"]:
        return function
    rows, whole = PartitionSpec(*[None] * axis, "data"), PartitionSpec()

    def run(params: Params, *arrays):
        return jax.shard_map(
            function,
            in_specs=(whole, *[rows] * len(arrays)),
            out_specs=PartitionSpec("data"),
            axis_names={"data"},
            check_vma=False,  # a loop's first carry is equal on all devices, later ones are not
        )(params, *arrays)

    return run


def by_rows_and_heads(
    function: Callable[..., Any], in_specs: Any, out_specs: Any, num_rows: int, num_heads: int
) -> Callable[..., Any]:
    """Inside jit: `function`, a kernel, on each device's own rows and heads; it sees no others.

    In the specs "rows" stands for `data` and "heads" for `model`, where these divide the numbers;
    else every device of that axis computes all of them. Without a mesh, the function itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = set(mesh.axis_names) - set(mesh.manual_axes)  # `data` is divided already in sampling
    if not free:
        return function
    rows = "data" if "data" in free and num_rows % mesh.shape["data"] == 0 else None
    places = {"rows": rows, "heads": "model" if num_heads % mesh.shape["model"] == 0 else None}

    def placed_by(specs: Any) -> Any:
        one = lambda spec: PartitionSpec(*(places.get(axis) for axis in spec))  # noqa: E731
        return jax.tree.map(one, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))

    return jax.shard_map(
        function,
        in_specs=placed_by(in_specs),
        out_specs=placed_by(out_specs),
        axis_names=free,
        check_vma=False,  # pallas_call says nothing of how its output varies over the mesh
    )


def largest_of_shards(x: jax.Array) -> jax.Array:
    """Inside `by_data_shard`, of a number or a flag: the largest over `data`, the same everywhere.

    Where a loop or a branch follows it, all shards take the same turns. They must: what the
    partitioner puts in for the `model` axis may be one message among all devices, for which a
    shard that took another way would be waited for in vain. Without that axis, x itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if "data" not in mesh.manual_axes or mesh.shape["model"] == 1:
        return x
    return jax.lax.pmax(x.astype(jnp.int32), "data").astype(x.dtype)


def placed(shapes: Any, shardings: Any) -> Any:
    """Shapes, dtypes and places of a pytree of arrays: what to restore, or to compile for."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def put(tree, shardings):
    """Host arrays onto devices; each process gives only the parts that its devices hold."""

    def one(x, sharding):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree, shardings)
