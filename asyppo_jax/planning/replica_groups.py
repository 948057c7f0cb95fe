"""The devices of a collective's group, as the text of a compiled program spells them.

{{0,1},{2,3}}, or [2,8]<=[16] (2 groups of 8), or mesh['data'=2,'model'=8] {'data'}. An axis may be
split: {'model':(2)4} is its second factor, 4, of 2 · 4.
"""

import math
import re

import numpy as np

_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_BY_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\S+)? \{([^}]*)\}")


def first_group(text: str, count: int) -> list[int]:
    """The first group's devices; all `count` devices if the text does not name them."""
    if listed := _LISTED.search(text):
        return [int(n) for n in listed.group(1).split(",") if n]
    if counted := _COUNTED.search(text):
        groups, size, dims, order = counted.groups()
        devices = np.arange(int(groups) * int(size)).reshape([int(n) for n in dims.split(",")])
        if order:
            devices = devices.transpose([int(n) for n in order.split(",")])
        return devices.reshape(-1)[: int(size)].tolist()
    if by_axes := _BY_AXES.search(text):
        return _of_axes(*by_axes.groups())
    return list(range(count))


def group_size(text: str) -> int:
    """The number of devices in a group; 0 if the text does not say it."""
    return len(first_group(text, 0))


def _of_axes(mesh: str, named: str) -> list[int]:
    """The first group over some axes of a mesh; no axis: over all of them."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    parts = {
        name: (int(before or 1), int(size or 0) or sizes[name])
        for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", named)
    } or {name: (1, size) for name, size in sizes.items()}
    shape: list[int] = []
    chosen: list[int] = []
    for name, size in sizes.items():
        before, length = parts.get(name, (1, 1))
        chosen += [len(shape) + 1] if name in parts else []
        shape += [before, length, size // (before * length)]
    devices = np.arange(math.prod(shape)).reshape(shape)
    return (
        np.moveaxis(devices, chosen, range(len(chosen)))
        .reshape(math.prod(shape[axis] for axis in chosen), -1)[:, 0]
        .tolist()
    )
