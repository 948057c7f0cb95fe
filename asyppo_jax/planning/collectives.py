"""The collectives of a compiled program: how often they run, and how many bytes a device sends."""

import math
import re
from dataclasses import dataclass

from asyppo_jax.planning.hlo import Instruction, Program, bytes_of

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# The devices of a group: {{0,1},{2,3}}, or [2,8]<=[16] (2 groups of 8), or
# mesh['data'=2,'model'=8] {'data'}. An axis may be split: {'model':(2)4} is its second factor, 4.
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_BY_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\S+)? \{([^}]*)\}")
# An all-reduce of which each device keeps a slice, fused: on a TPU, that is a reduce-scatter.
_FUSED_REDUCE_SCATTER = "all-reduce-scatter"


@dataclass
class Traffic:
    """The collectives of one kind, per device."""

    count: float = 0.0
    bytes: float = 0.0  # sent by a device, assuming ring algorithms


def collectives(program: Program) -> dict[str, Traffic]:
    """How often each kind of collective runs, and how many bytes a device sends by it."""
    by_kind: dict[str, Traffic] = {}
    for name, instructions in program.computations.items():
        runs = program.runs.get(name, 0.0)
        started = _started(instructions)
        for i in instructions:
            kind = i.opcode.removesuffix("-start")
            if not runs or kind not in COLLECTIVES or (_is_in_steps(i) and i.name not in started):
                continue
            if kind == "all-reduce" and name.startswith(_FUSED_REDUCE_SCATTER):
                kind = "reduce-scatter"
            traffic = by_kind.setdefault(kind, Traffic())
            traffic.count += runs
            traffic.bytes += runs * _sent(kind, i)
    return by_kind


def _is_in_steps(i: Instruction) -> bool:
    """Whether a collective runs inside other fusions, each of which repeats it in the text."""
    return "async_collective_fusion_config" in i.text


def _started(instructions: list[Instruction]) -> set[str]:
    """The collectives that a computation starts; the fusions that continue one start nothing."""
    starts = [i for i in instructions if '"AsyncCollectiveStart"' in i.text]
    return {name for start in starts for name in start.operands}


def _sent(kind: str, instruction: Instruction) -> float:
    group_size = _group_size(instruction.text)
    # An asynchronous start returns (operand, result, …), the largest of which is the full array.
    sizes = [bytes_of(shape) for shape in instruction.shapes]
    is_async = instruction.opcode.endswith("-start")
    full = float(max(sizes, default=0) if is_async else sum(sizes))
    share = (group_size - 1) / group_size if group_size else 1.0
    if kind == "all-reduce":
        return 2 * share * full
    if instruction.opcode == "reduce-scatter":  # its result is one device's part
        return share * full * max(group_size, 1)
    return full if kind == "collective-permute" else share * full


def _group_size(text: str) -> int:
    """The number of devices in a group; 0 if the text does not say it."""
    if listed := _LISTED.search(text):
        return len(listed.group(1).split(","))
    if counted := _COUNTED.search(text):
        return int(counted.group(1))
    by_axes = _BY_AXES.search(text)
    if by_axes is None:
        return 0
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", by_axes.group(1)))
    axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", by_axes.group(2))
    if not axes:  # no axis is named: one group of all devices
        return math.prod(map(int, sizes.values()))
    return math.prod(int(factor or sizes[name]) for name, factor in axes)
