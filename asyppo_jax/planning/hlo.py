"""FLOPs and collectives of a compiled program, read from its HLO text with loop trip counts.

XLA's own cost analysis counts the body of a loop once. A model is scanned over layers inside scans
over microbatches, so those numbers are thousands of times too small. Here every computation is
multiplied by the number of times that it runs.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
_BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^(?:ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][\w\-]*)\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_SCOPES = re.compile(r'op_name="([^"]*)"')
_GROUP = re.compile(r"replica_groups=\[(\d+),(\d+)\]|replica_groups=\{\{([\d,]*)\}")
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

Shape = tuple[str, tuple[int, ...]]
# Trip counts of loops, by the `jax.named_scope` around them.
Trips = Mapping[str, float]


@dataclass(frozen=True)
class Instruction:
    """One line of HLO."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of the result; several for a tuple
    operands: tuple[str, ...]
    text: str  # of the line, from the operands on
    on_chip: tuple[bool, ...] = ()  # for each shape: in on-chip memory (VMEM) instead of HBM

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(map(bytes_of, self.shapes))

    @property
    def hbm_bytes(self) -> int:
        """Bytes of those parts of the result that are in HBM."""
        pairs = zip(self.shapes, self.on_chip, strict=True)
        return sum(bytes_of(shape) for shape, on_chip in pairs if not on_chip)


def bytes_of(shape: Shape) -> int:
    """Bytes of one array; 0 for tokens and other types without a size."""
    return _BYTES.get(shape[0], 0) * math.prod(shape[1])


@dataclass
class Program:
    """The computations of an HLO module, and how often each of them runs."""

    computations: dict[str, list[Instruction]]
    runs: dict[str, float] = field(default_factory=dict)


def read_program(text: str, *, unknown_trips: Trips | None = None) -> Program:
    """The program parsed from `compiled.as_text()`.

    The trip count of a loop is XLA's annotation. Without one (as on TPU), it is the constant in the
    loop's condition, which is right for loops that count up from 0 by 1. If there is neither, it is
    `unknown_trips[scope]` of the innermost `jax.named_scope` around the loop that has an entry, or
    `unknown_trips[""]`, or 1.
    """
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if line.endswith("{") and (match := _COMPUTATION.match(line)):
            current = match.group(1)
            computations[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (match := _INSTRUCTION.match(line.strip())):
            computations[current].append(_instruction(*match.groups()))
    program = Program(computations)
    _count_runs(program, entry, unknown_trips or {})
    return program


def _instruction(name: str, rest: str) -> Instruction:
    opcode = _OPCODE.search(rest)
    if opcode is None:
        return Instruction(name, "", (), (), rest)
    result, after = rest[: opcode.start(1)], rest[opcode.end() :]
    arrays = _SHAPE.findall(result)
    shapes = tuple((t, tuple(int(d) for d in dims.split(",") if d)) for t, dims, _ in arrays)
    on_chip = tuple("S(1)" in layout for _, _, layout in arrays)
    arguments = after[: after.find(")")]
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(name, opcode.group(1), shapes, operands, after, on_chip)


def _count_runs(program: Program, entry: str, unknown_trips: Trips) -> None:
    """Sets `program.runs`, how often each computation runs, by visiting callers before callees."""
    calls: dict[str, list[tuple[str, float]]] = {}
    for name, instructions in program.computations.items():
        calls[name] = [call for i in instructions for call in _calls(i, program, unknown_trips)]
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen or name not in calls:
            return
        seen.add(name)
        for callee, _ in calls[name]:
            visit(callee)
        order.append(name)

    visit(entry)
    runs: dict[str, float] = defaultdict(float)
    runs[entry] = 1
    for name in reversed(order):
        for callee, times in calls[name]:
            runs[callee] += runs[name] * times
    program.runs = dict(runs)


def _calls(
    instruction: Instruction, program: Program, unknown_trips: Trips
) -> list[tuple[str, float]]:
    times = 1.0
    if instruction.opcode == "while":
        annotation = _TRIPS.search(instruction.text)
        trips = _limit(instruction, program) if annotation is None else float(annotation.group(1))
        times = _trips_of_scope(instruction, unknown_trips) if trips is None else trips
    return [(name, times) for name in called_by(instruction)]


def called_by(instruction: Instruction) -> list[str]:
    """The computations called by an instruction: loop bodies, branches, fusions, reducers, …"""
    called = _CALLED.findall(instruction.text)
    if branches := _BRANCHES.search(instruction.text):
        called += [name.strip().lstrip("%") for name in branches.group(1).split(",")]
    return called


def _trips_of_scope(loop: Instruction, trips: Trips) -> float:
    op_name = _SCOPES.search(loop.text)
    # Transformations wrap the name of a scope: transpose(jvp(scope)).
    scopes = re.split(r"[/()]+", op_name.group(1)) if op_name else []
    known = [trips[scope] for scope in reversed(scopes) if scope in trips]
    return known[0] if known else trips.get("", 1.0)


def _limit(loop: Instruction, program: Program) -> float | None:
    """The integer constant in a loop's condition; None unless there is exactly one."""
    name_match = re.search(r"condition=%?([\w.\-]+)", loop.text)
    condition = program.computations.get(name_match.group(1), []) if name_match else []
    constants = {i.name: i for i in condition if i.opcode == "constant"}
    limits = [
        float(number.group(1))
        for i in condition
        if i.shapes == (("pred", ()),)  # a compare, or a fusion that wraps it
        for name in i.operands
        if name in constants and (number := re.match(r"(\d+)\)", constants[name].text))
    ]
    return limits[0] if len(limits) == 1 else None


def dot_flops(program: Program) -> float:
    """FLOPs of all `dot` instructions, 2 · M · N · K each, times the runs of their computations.

    TPU programs have their matrix products as convolutions and custom calls, which are not counted.
    """
    total = 0.0
    for name, instructions in program.computations.items():
        shapes = {i.name: i.shapes for i in instructions}
        for i in instructions:
            if i.opcode != "dot" or name not in program.runs:
                continue
            dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.text)
            lhs_shape = shapes[i.operands[0]][0][1]
            axes = [int(d) for d in dims.group(1).split(",") if d] if dims else []
            contracted = math.prod(lhs_shape[axis] for axis in axes)
            total += 2 * math.prod(i.shapes[0][1]) * contracted * program.runs[name]
    return total


@dataclass
class Traffic:
    """The collectives of one kind, per device."""

    count: float = 0.0
    bytes: float = 0.0  # sent by a device, assuming ring algorithms


def collectives(program: Program) -> dict[str, Traffic]:
    """How often each kind of collective runs, and how many bytes a device sends by it."""
    by_kind: dict[str, Traffic] = {}
    for name, instructions in program.computations.items():
        for i in instructions:
            kind = i.opcode.removesuffix("-start")
            if kind not in COLLECTIVES or name not in program.runs:
                continue
            traffic = by_kind.setdefault(kind, Traffic())
            traffic.count += program.runs[name]
            traffic.bytes += program.runs[name] * _sent(kind, i)
    return by_kind


def _sent(kind: str, instruction: Instruction) -> float:
    group_size = _group_size(instruction.text)
    # An asynchronous start returns (operand, result, …), the largest of which is the full array.
    sizes = [bytes_of(shape) for shape in instruction.shapes]
    is_async = instruction.opcode.endswith("-start")
    full = float(max(sizes, default=0) if is_async else sum(sizes))
    share = (group_size - 1) / group_size if group_size else 1.0
    if kind == "all-reduce":
        return 2 * share * full
    if kind == "reduce-scatter" and not is_async:
        return share * full * max(group_size, 1)
    return full if kind == "collective-permute" else share * full


def _group_size(text: str) -> int:
    groups = _GROUP.search(text)
    if groups is None:
        return 0
    if groups.group(2):
        return int(groups.group(2))
    return len(groups.group(3).split(","))
