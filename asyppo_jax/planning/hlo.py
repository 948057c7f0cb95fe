"""What a compiled program does, read from its HLO text with the trip counts of its loops.

XLA's own cost analysis counts the body of a loop once; a model is scanned over layers inside scans
over microbatches, so its figures are thousands of times too small. Here every computation is
weighed by how often it runs.
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
# Of loops, by the scope that they lie in.
Trips = Mapping[str, float]


@dataclass(frozen=True)
class Instruction:
    """One line of HLO."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of the result; several for a tuple
    operands: tuple[str, ...]
    text: str  # from the operands on
    on_chip: tuple[bool, ...] = ()  # of each shape: in the chip's own memory, and not in HBM

    @property
    def bytes(self) -> int:
        """Size of the result."""
        return sum(map(bytes_of, self.shapes))

    @property
    def hbm_bytes(self) -> int:
        """Size of what of the result lies in HBM."""
        pairs = zip(self.shapes, self.on_chip, strict=True)
        return sum(bytes_of(shape) for shape, near in pairs if not near)


def bytes_of(shape: Shape) -> int:
    """Size of one array; tokens and other things without a size have none."""
    return _BYTES.get(shape[0], 0) * math.prod(shape[1])


@dataclass
class Program:
    """The computations of a module, and how often each of them runs."""

    computations: dict[str, list[Instruction]]
    runs: dict[str, float] = field(default_factory=dict)


def read_program(text: str, *, unknown_trips: Trips | None = None) -> Program:
    """Parses `compiled.as_text()`.

    A loop's trip count is read from what XLA noted at it or, where it noted nothing (as on TPU),
    from the constant that its condition compares with: right for loops that count up from 0 by 1.
    A loop of which neither tells runs `unknown_trips` times: {scope: times} by the innermost
    `jax.named_scope` around it that has an entry, "" for all others (1 if there is none).
    """
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if line.endswith("{") and (found := _COMPUTATION.match(line)):
            current = found.group(1)
            computations[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (found := _INSTRUCTION.match(line.strip())):
            computations[current].append(_instruction(*found.groups()))
    program = Program(computations)
    _count_runs(program, entry, unknown_trips or {})
    return program


def _instruction(name: str, rest: str) -> Instruction:
    found = _OPCODE.search(rest)
    if found is None:
        return Instruction(name, "", (), (), rest)
    result, after = rest[: found.start(1)], rest[found.end() :]
    parts = _SHAPE.findall(result)
    shapes = tuple((t, tuple(int(d) for d in dims.split(",") if d)) for t, dims, _ in parts)
    on_chip = tuple("S(1)" in layout for _, _, layout in parts)
    arguments = after[: after.find(")")]
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(name, found.group(1), shapes, operands, after, on_chip)


def _count_runs(program: Program, entry: str, unknown_trips: Trips) -> None:
    """How often each computation runs: callers come before what they call."""
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
        noted = _TRIPS.search(instruction.text)
        limit = _limit(instruction, program) if noted is None else float(noted.group(1))
        times = _by_scope(instruction, unknown_trips) if limit is None else limit
    return [(name, times) for name in called_by(instruction)]


def called_by(instruction: Instruction) -> list[str]:
    """The computations that an instruction names: bodies, branches, what it fuses or applies."""
    called = _CALLED.findall(instruction.text)
    if found := _BRANCHES.search(instruction.text):
        called += [name.strip().lstrip("%") for name in found.group(1).split(",")]
    return called


def _by_scope(loop: Instruction, trips: Trips) -> float:
    found = _SCOPES.search(loop.text)
    # Transformations wrap a scope's name: transpose(jvp(scope)).
    scopes = re.split(r"[/()]+", found.group(1)) if found else []
    known = [trips[scope] for scope in reversed(scopes) if scope in trips]
    return known[0] if known else trips.get("", 1.0)


def _limit(loop: Instruction, program: Program) -> float | None:
    """The one integer constant that a loop's condition compares its counter with."""
    found = re.search(r"condition=%?([\w.\-]+)", loop.text)
    condition = program.computations.get(found.group(1), []) if found else []
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
    """2 · M · N · K of every matrix product that is a `dot`, times the runs of its computation.

    TPU programs hold their products as convolutions and custom calls, which are not counted.
    """
    total = 0.0
    for name, instructions in program.computations.items():
        shapes = {i.name: i.shapes for i in instructions}
        for i in instructions:
            if i.opcode != "dot" or name not in program.runs:
                continue
            found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.text)
            left = shapes[i.operands[0]][0][1]
            axes = [int(d) for d in found.group(1).split(",") if d] if found else []
            contracted = math.prod(left[a] for a in axes)
            total += 2 * math.prod(i.shapes[0][1]) * contracted * program.runs[name]
    return total


@dataclass
class Traffic:
    """The collectives of one kind, a device."""

    count: float = 0.0
    bytes: float = 0.0  # that a device sends, ring algorithms assumed


def collectives(program: Program) -> dict[str, Traffic]:
    """How often each kind of collective runs, and what it moves."""
    found: dict[str, Traffic] = {}
    for name, instructions in program.computations.items():
        for i in instructions:
            kind = i.opcode.removesuffix("-start")
            if kind not in COLLECTIVES or name not in program.runs:
                continue
            traffic = found.setdefault(kind, Traffic())
            traffic.count += program.runs[name]
            traffic.bytes += program.runs[name] * _sent(kind, i)
    return found


def _sent(kind: str, instruction: Instruction) -> float:
    size = _group_size(instruction.text)
    # The result of an asynchronous start is (operand, result, …): its largest part is the whole.
    parts = [bytes_of(shape) for shape in instruction.shapes]
    is_async = instruction.opcode.endswith("-start")
    whole = float(max(parts, default=0) if is_async else sum(parts))
    share = (size - 1) / size if size else 1.0
    if kind == "all-reduce":
        return 2 * share * whole
    if kind == "reduce-scatter" and not is_async:
        return share * whole * max(size, 1)
    return whole if kind == "collective-permute" else share * whole


def _group_size(text: str) -> int:
    found = _GROUP.search(text)
    if found is None:
        return 0
    if found.group(2):
        return int(found.group(2))
    return len(found.group(3).split(","))
