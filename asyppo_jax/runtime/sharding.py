"""The device mesh, and the table that maps logical axis names to mesh axes."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asyppo_jax.config import MeshConfig
from asyppo_jax.config.checks import mesh_shape
from asyppo_jax.config.settings import ModelField
from asyppo_jax.runtime.libtpu import answer_libtpu
from asyppo_jax.types import Params

# Parameters are sharded over `data` along their embed axis (FSDP) and over `model` along heads, mlp
# and vocabulary (tensor parallelism). The axes of layers and critics are not sharded, because the
# code loops or vmaps over them.
RULES: tuple[tuple[str, str | None], ...] = (
    ("batch", "data"),
    ("time", None),
    # Time axis of the activations that each layer saves for the backward pass. Replicated over
    # `model`, they would be the largest arrays in memory (sequence parallelism, arXiv 2205.05198).
    ("residual_time", "model"),
    ("embed", "data"),
    ("heads", "model"),
    ("kv_heads", "model"),
    ("head_dim", None),
    ("mlp", "model"),
    ("vocab", "model"),
    ("layers", None),
    ("critic", None),
    ("bins", None),
)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh [data, model] of the actor's update over all devices, or over `devices`.

    The meshes of sampling and of the critics have the same devices in the same order
    (`phase_meshes`). It is the order of the largest `model`, whose devices should be neighbours.

    Raises:
        ConfigError: sizes of the mesh of a phase do not fit the number of devices.
    """
    answer_libtpu()
    count = jax.device_count() if devices is None else len(devices)
    shapes = [mesh_shape(config, count, field) for field in get_args(ModelField)]
    largest = max(shapes, key=lambda shape: shape[1])
    return with_model(_make_mesh(largest, devices), shapes[0][1])


def with_model(mesh: Mesh, model: int) -> Mesh:
    """A mesh of the same devices in the same flat order, whose `model` axis has this size."""
    if mesh.shape["model"] == model:
        return mesh
    grid = mesh.devices.reshape(-1, model)
    return Mesh(grid, mesh.axis_names, axis_types=mesh.axis_types)


def _make_mesh(shape: tuple[int, int], devices: Sequence[Any] | None) -> Mesh:
    names = ("data", "model")
    # Auto, not the default Explicit: with explicit axes the matrix products of FSDP raise errors.
    auto = (AxisType.Auto, AxisType.Auto)
    try:
        return jax.make_mesh(shape, names, auto, devices=devices)
    except NotImplementedError:
        # The sizes are not products of the torus's sides (2 x 8 on 4 x 4), so a side is split.
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, names, axis_types=auto)


def param_shardings(boxed: Params, mesh: Mesh) -> Params:
    """The sharding of every leaf of a boxed (axis-named) parameter tree, by `RULES`.

    An axis whose size is not a multiple of its mesh axis (say 3 key heads over 2) is not sharded.
    """
    specs = meta.get_partition_spec(boxed)
    shapes = meta.unbox(boxed)

    def leaf_sharding(spec: PartitionSpec, leaf) -> NamedSharding:
        return NamedSharding(mesh, _partition_spec(tuple(spec), leaf.shape, mesh.abstract_mesh))

    return jax.tree.map(leaf_sharding, specs, shapes, is_leaf=_is_spec)


def _is_spec(node: Any) -> bool:
    return isinstance(node, PartitionSpec)


def gather_params(params: Params, boxed: Params) -> Params:
    """Inside jit: parameters all-gathered over `data`, still sharded over `model` (see `RULES`).

    For loops that read every parameter in every iteration. All-gathering layer by layer, as FSDP
    does, would send the parameters over the interconnect in every iteration.
    """
    return _constrain_params(params, boxed, replicate="embed")


def shard_params(params: Params, boxed: Params) -> Params:
    """Inside jit: parameters, or gradients of gathered parameters, sharded by `RULES`."""
    return _constrain_params(params, boxed)


def _constrain_params(params: Params, boxed: Params, replicate: str = "") -> Params:
    if jax.sharding.get_abstract_mesh().empty:
        return params
    specs = meta.get_partition_spec(boxed)

    def constrain_leaf(spec: PartitionSpec, x):
        return constrain(x, [None if name == replicate else name for name in tuple(spec)])

    return jax.tree.map(constrain_leaf, specs, params, is_leaf=_is_spec)


def constrain(x: jax.Array, names: Sequence[str | None]) -> jax.Array:
    """Inside jit: an array sharded by the names of its axes; unchanged without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, _partition_spec(names, x.shape, mesh))


def _partition_spec(names: Sequence[str | None], shape: tuple[int, ...], mesh) -> PartitionSpec:
    """`RULES` for one array.

    An axis is not sharded if its size is not a multiple of the mesh axis, or if a surrounding
    `shard_map` already uses that mesh axis.
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
    """Shardings for optimizer state: moments are sharded as their parameter, all else replicated.

    A leaf is the moment of a parameter if its path ends in the parameter's path and the shapes are
    equal.
    """
    by_path = {
        jax.tree_util.keystr(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
        )
    }
    other = replicated(mesh)

    def leaf_sharding(path, leaf):
        for start in range(len(path)):
            param = by_path.get(jax.tree_util.keystr(path[start:]))
            if param and param[0] == leaf.shape:
                return param[1]
        return other

    return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding with axis 0 (rows) over `data` and all other axes unsharded."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding with a full copy of the array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain_batch(tree, axis: int = 0):
    """Inside jit: arrays with `axis` sharded over `data`, if that divides its size."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or "data" not in mesh.axis_names or "data" in mesh.manual_axes:
        return tree

    def constrain_leaf(x):
        if x.ndim <= axis or x.shape[axis] % mesh.shape["data"]:
            return x
        spec = PartitionSpec(*[None] * axis, "data")
        return jax.lax.with_sharding_constraint(x, spec)

    return jax.tree.map(constrain_leaf, tree)


def map_data_shards(
    function: Callable[..., Any], num_rows: int, *, axis: int = 0
) -> Callable[..., Any]:
    """Inside jit: function(params, *arrays) under `shard_map`, so each `data` shard runs its rows.

    The rows are along `axis` of the inputs and along the first axis of the outputs. `params` are
    replicated over `data`; the other mesh axes are left to the partitioner. Returns `function`
    itself without a mesh, or if `num_rows` is not a multiple of `data`. Conditions of loops and
    branches in `function` must go through `max_over_data_shards`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["data"] == 1 or num_rows % mesh.shape["data"]:
        return function
    rows, replicated_spec = PartitionSpec(*[None] * axis, "data"), PartitionSpec()

    def run(params: Params, *arrays):
        return jax.shard_map(
            function,
            in_specs=(replicated_spec, *[rows] * len(arrays)),
            out_specs=PartitionSpec("data"),
            axis_names={"data"},
            check_vma=False,  # a loop starts with an equal carry on all devices, which then differs
        )(params, *arrays)

    return run


def map_rows_and_heads(
    function: Callable[..., Any], in_specs: Any, out_specs: Any, num_rows: int, num_heads: int
) -> Callable[..., Any]:
    """Inside jit: `function`, a kernel, under `shard_map` over rows (`data`) and heads (`model`).

    In the specs, "rows" means `data` and "heads" means `model`. If `num_rows` or `num_heads` is not
    a multiple of its mesh axis, every device of that axis computes all of them. Returns `function`
    itself without a mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    # In sampling, `data` is manual already.
    free_axes = set(mesh.axis_names) - set(mesh.manual_axes)
    if not free_axes:
        return function
    rows = "data" if "data" in free_axes and num_rows % mesh.shape["data"] == 0 else None
    heads = "model" if num_heads % mesh.shape["model"] == 0 else None
    mesh_axes = {"rows": rows, "heads": heads}

    def to_mesh_axes(specs: Any) -> Any:
        return jax.tree.map(
            lambda spec: PartitionSpec(*(mesh_axes.get(axis) for axis in spec)),
            specs,
            is_leaf=_is_spec,
        )

    return jax.shard_map(
        function,
        in_specs=to_mesh_axes(in_specs),
        out_specs=to_mesh_axes(out_specs),
        axis_names=free_axes,
        check_vma=False,  # pallas_call does not declare how its output varies over the mesh
    )


def max_over_data_shards(x: jax.Array) -> jax.Array:
    """Inside `map_data_shards`: the maximum of a number or flag over `data`, equal on all shards.

    Loop and branch conditions must use it if there is a `model` axis. Otherwise shards would
    disagree on control flow, and a collective that the partitioner inserts for `model`, which may
    span all devices, would deadlock. Returns `x` itself if `model` is 1.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if "data" not in mesh.manual_axes or mesh.shape["model"] == 1:
        return x
    return jax.lax.pmax(x.astype(jnp.int32), "data").astype(x.dtype)


def placed(shapes: Any, shardings: Any) -> Any:
    """Abstract arrays (shape, dtype, sharding) of a pytree, for restoring or for compiling."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def put(tree, shardings):
    """Device arrays from host arrays; each process transfers only the shards of its own devices."""

    def put_leaf(x, sharding):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put_leaf, tree, shardings)
