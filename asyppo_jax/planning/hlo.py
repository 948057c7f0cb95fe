"""The computations of a compiled program, read from its HLO text, and how often each one runs.

XLA's own cost analysis counts the body of a loop once. A model is scanned over layers inside scans
over microbatches, so those numbers are thousands of times too small. Here every computation is
multiplied by the number of times that it runs.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
_BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^(ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][\w\-]*)\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_SCOPES = re.compile(r'op_name="([^"]*)"')
# Instructions that hand a number on.
_COPIES = ("copy", "copy-start", "copy-done", "bitcast", "convert", "reshape")

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
    is_root: bool = False  # the result of its computation

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
    entry: str = ""  # the computation that runs first
    runs: dict[str, float] = field(default_factory=dict)


def read_program(text: str, *, unknown_trips: Trips | None = None) -> Program:
    """The program parsed from `compiled.as_text()`.

    The trip count of a loop is XLA's annotation. Without one (as on TPU), it is
    ⌈(limit − start) / step⌉ of the loop's counter, which the condition compares with a constant. If
    there is neither, it is `unknown_trips[scope]` of the innermost `jax.named_scope` around the
    loop that has an entry, or `unknown_trips[""]`, or 1.
    """
    computations: dict[str, list[Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if line.endswith("{") and (match := _COMPUTATION.match(line)):
            current = match.group(1)
            computations[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current and (match := _INSTRUCTION.match(line.strip())):
            root, name, rest = match.groups()
            computations[current].append(_instruction(name, rest, is_root=root is not None))
    program = Program(computations, entry)
    _count_runs(program, entry, unknown_trips or {})
    return program


def _instruction(name: str, rest: str, *, is_root: bool) -> Instruction:
    opcode = _OPCODE.search(rest)
    if opcode is None:
        return Instruction(name, "", (), (), rest, is_root=is_root)
    result, after = rest[: opcode.start(1)], rest[opcode.end() :]
    arrays = _SHAPE.findall(result)
    shapes = tuple((t, tuple(int(d) for d in dims.split(",") if d)) for t, dims, _ in arrays)
    on_chip = tuple("S(1)" in layout for _, _, layout in arrays)
    arguments = after[: after.find(")")]
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(name, opcode.group(1), shapes, operands, after, on_chip, is_root)


def _count_runs(program: Program, entry: str, unknown_trips: Trips) -> None:
    """Sets `program.runs`, how often each computation runs, by visiting callers before callees."""
    calls: dict[str, list[tuple[str, float]]] = {}
    for name, instructions in program.computations.items():
        calls[name] = [
            call for i in instructions for call in _calls(i, instructions, program, unknown_trips)
        ]
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
    instruction: Instruction,
    caller: Sequence[Instruction],
    program: Program,
    unknown_trips: Trips,
) -> list[tuple[str, float]]:
    times = 1.0
    if instruction.opcode == "while":
        annotation = _TRIPS.search(instruction.text)
        trips = float(annotation.group(1)) if annotation else _trips(instruction, caller, program)
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


def _trips(loop: Instruction, caller: Sequence[Instruction], program: Program) -> float | None:
    """⌈(limit − start) / step⌉ of a loop's counter; None if its limit is no constant.

    The step is more than 1 where the compiler unrolls a loop. A start that is not known is taken
    for 0, a step that is not known for 1.
    """
    condition, body = _called(loop, "condition", program), _called(loop, "body", program)
    limits = [
        (limit, counter)
        for i in condition.values()
        if i.shapes == (("pred", ()),)  # a compare, or a fusion that wraps it
        for limit in [_constant(name, condition) for name in i.operands]
        for counter in [_element(name, condition) for name in i.operands]
        if limit is not None and counter is not None
    ]
    if len(limits) != 1:
        return None
    limit, counter = limits[0]
    outside = {i.name: i for i in caller}
    initial = outside.get(loop.operands[0]) if loop.operands else None
    first = initial.operands if initial is not None and initial.opcode == "tuple" else ()
    start = _constant(first[counter], outside) if first else None
    step = _step(counter, body, [_constant(name, outside) for name in first], program)
    trips = math.ceil((limit - (start or 0)) / step)
    return float(trips) if trips > 0 else None


def _step(
    counter: int, body: Mapping[str, Instruction], initial: Sequence[int | None], program: Program
) -> int:
    """By how much a loop's body changes its counter; 1 if that is not known."""
    root = next((i for i in body.values() if i.is_root), None)
    if root is None or counter >= len(root.operands):
        return 1

    def value(name: str) -> int | None:
        element = _element(name, body)  # perhaps a constant that is an element of the loop's tuple
        if element is None:
            return _constant(name, body)
        is_kept = _element(root.operands[element], body) == element
        return initial[element] if is_kept and element < len(initial) else None

    result = _source(root.operands[counter], body)
    steps = [value(name) for name in result.operands] if result and result.opcode == "add" else []
    if result is not None and result.opcode == "fusion":  # of one addition
        fused = _called(result, "calls", program)
        inner = next((i for i in fused.values() if i.is_root and i.opcode == "add"), None)
        steps = [_constant(name, fused) for name in inner.operands] if inner else []
        steps += [value(name) for name in result.operands] if inner else []
    known = [step for step in steps if step]
    return known[0] if len(known) == 1 else 1


def _called(i: Instruction, attribute: str, program: Program) -> dict[str, Instruction]:
    name = re.search(rf"\b{attribute}=%?([\w.\-]+)", i.text)
    return {i.name: i for i in program.computations.get(name.group(1), [])} if name else {}


def _source(name: str, body: Mapping[str, Instruction]) -> Instruction | None:
    """The instruction that makes a number, behind copies and conversions of it."""
    i = body.get(name)
    while i is not None and i.opcode in _COPIES:
        i = body.get(i.operands[0])
    return i


def _constant(name: str, body: Mapping[str, Instruction]) -> int | None:
    """The value of an integer constant; None for anything else."""
    i = _source(name, body)
    number = re.match(r"(-?\d+)\)", i.text) if i is not None and i.opcode == "constant" else None
    return int(number.group(1)) if number else None


def _element(name: str, body: Mapping[str, Instruction]) -> int | None:
    """The place in its tuple of a `get-tuple-element`; None for anything else."""
    i = _source(name, body)
    if i is None or i.opcode != "get-tuple-element":
        return None
    index = re.search(r"index=(\d+)", i.text.partition(")")[2])
    return int(index.group(1)) if index else None


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
