"""The collectives of a compiled program: how often they run, and how many bytes a device sends."""

from dataclasses import dataclass

from asyppo_jax.planning.hlo import Instruction, Program, bytes_of
from asyppo_jax.planning.replica_groups import group_size

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
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
        begun = started(instructions)
        for i in instructions:
            kind = kind_of(i, name)
            if not runs or not kind or (is_in_steps(i) and i.name not in begun):
                continue
            traffic = by_kind.setdefault(kind, Traffic())
            traffic.count += runs
            traffic.bytes += runs * sent_bytes(kind, i)
    return by_kind


def kind_of(i: Instruction, computation: str) -> str:
    """Which of `COLLECTIVES` an instruction of a computation is or starts; "" if none."""
    kind = i.opcode.removesuffix("-start")
    if kind == "all-reduce" and computation.startswith(_FUSED_REDUCE_SCATTER):
        return "reduce-scatter"
    return kind if kind in COLLECTIVES else ""


def is_in_steps(i: Instruction) -> bool:
    """Whether a collective runs inside other fusions, each of which repeats it in the text."""
    return "async_collective_fusion_config" in i.text


def started(instructions: list[Instruction]) -> set[str]:
    """The collectives that a computation starts; the fusions that continue one start nothing."""
    starts = [i for i in instructions if '"AsyncCollectiveStart"' in i.text]
    return {name for start in starts for name in start.operands}


def sent_bytes(kind: str, instruction: Instruction) -> float:
    """The bytes that a device sends in one run of a collective, by a ring."""
    size = group_size(instruction.text)
    # An asynchronous start returns (operand, result, …), the largest of which is the full array.
    sizes = [bytes_of(shape) for shape in instruction.shapes]
    is_async = instruction.opcode.endswith("-start")
    full = float(max(sizes, default=0) if is_async else sum(sizes))
    share = (size - 1) / size if size else 1.0
    if kind == "all-reduce":
        return 2 * share * full
    if instruction.opcode == "reduce-scatter":  # its result is one device's part
        return share * full * max(size, 1)
    return full if kind == "collective-permute" else share * full
