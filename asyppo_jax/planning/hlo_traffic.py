"""The bytes that a compiled program moves to and from the memory of its chip, read from its HLO.

Every instruction that is no part of a fusion reads its operands and writes its result; a fusion
that takes a slice of an operand reads the slice, and one that writes rows of an array in place
writes the rows. What lies in the chip's own memory is not counted. A kernel's text does not say
what it reads: the caller does.
"""

from collections.abc import Mapping

from asyppo_jax.planning.hlo import Instruction, Program, called_by

# Names for what is there already, and loops and branches, whose bodies are counted themselves.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("while", "conditional", "call", "partition-id", "replica-id", "opt-barrier", "reshape"),
}
_SLICES = ("dynamic-slice", "slice", "gather")
_IN_PLACE = ("dynamic-update-slice", "scatter")

Body = dict[str, Instruction]


def moved_bytes(program: Program, kernels: Mapping[str, float]) -> float:
    """Bytes read and written on one chip.

    `kernels` gives the bytes that one call of a kernel moves, by the beginning of its name; other
    kernels read their operands once and write their results.
    """
    bodies = {name: {i.name: i for i in some} for name, some in program.computations.items()}
    total = 0.0
    for name in _run_computations(program):
        body, runs = bodies[name], program.runs.get(name, 0.0)
        total += runs * sum(_moved(i, body, bodies, kernels) for i in body.values() if runs)
    return total


def _run_computations(program: Program) -> set[str]:
    """The entry and what loops, branches and calls run, but not what fusions are made of."""
    called = {name: set[str]() for name in program.computations}
    inside: set[str] = set()
    for name, instructions in program.computations.items():
        for i in instructions:
            inside |= set(called_by(i))
            if i.opcode in ("while", "conditional", "call"):
                called[name] |= set(called_by(i))
    found, waiting = set[str](), [name for name in called if name not in inside]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += called.get(name, ())
    return found & set(program.computations)


def _moved(
    i: Instruction, body: Body, bodies: Mapping[str, Body], kernels: Mapping[str, float]
) -> float:
    if i.opcode in _FREE or i.opcode.endswith(("-done", "-update")) or "AllocateBuffer" in i.text:
        return 0.0
    for kernel, size in kernels.items():
        if i.opcode == "custom-call" and i.name.startswith(kernel):
            return size
    operands = [body[name] for name in i.operands if name in body]
    if i.opcode in _IN_PLACE:  # of the rows alone: read, and written
        return 2.0 * _changed(i, body) if i.on_chip == (False,) else 0.0
    if i.opcode in _SLICES:
        return float(i.hbm_bytes) + (i.bytes if operands and operands[0].hbm_bytes else 0)
    inner = _fused(i, bodies)
    if inner is None:
        return float(i.hbm_bytes + sum(o.hbm_bytes for o in operands))
    read = sum(
        _read(inner, at, bodies, o.hbm_bytes) for at, o in enumerate(operands) if o.hbm_bytes
    )
    return float(read + _written(i, inner, bodies))


def _fused(i: Instruction, bodies: Mapping[str, Body]) -> Body | None:
    """What a fusion is made of; None for anything else."""
    return bodies.get(called_by(i)[0]) if i.opcode == "fusion" else None


def _read(body: Body, index: int, bodies: Mapping[str, Body], whole: int) -> int:
    """Bytes that a fusion reads of its operand `index`, which has `whole`."""
    parameter = next(
        i for i in body.values() if i.opcode == "parameter" and i.text.startswith(f"{index})")
    )
    return min(whole, _used(body, parameter, bodies, whole))


def _used(body: Body, value: Instruction, bodies: Mapping[str, Body], whole: int) -> int:
    if value is list(body.values())[-1]:  # the result: what becomes of it is not seen here
        return whole
    total = 0
    for user in body.values():
        if value.name not in user.operands:
            continue
        place = user.operands.index(value.name)
        fused = _fused(user, bodies)
        if user.opcode in _SLICES and place == 0:
            total += user.bytes
        elif user.opcode in _IN_PLACE and place == 0:
            continue  # what is changed in place is counted as written
        elif user.opcode in ("bitcast", "reshape"):
            total += _used(body, user, bodies, whole)
        elif fused is not None:
            total += _read(fused, place, bodies, whole)
        else:
            return whole
    return total


def _written(i: Instruction, body: Body, bodies: Mapping[str, Body]) -> int:
    """Bytes that a fusion writes: of arrays that it changes in place, the changed rows alone."""
    size = i.hbm_bytes
    for inner in body.values():
        fused = _fused(inner, bodies)
        if fused is not None and inner.bytes == i.bytes:
            size = min(size, _written(i, fused, bodies))
        if inner.opcode in _IN_PLACE and inner.bytes <= size:
            size += _changed(inner, body) - inner.bytes
    return size


def _changed(i: Instruction, body: Body) -> int:
    """Bytes of the rows that an operation in place puts in: (array, rows, where) or, scattered,
    (array, where, rows).
    """
    rows = body.get(i.operands[1 if i.opcode == "dynamic-update-slice" else -1])
    return i.bytes if rows is None else rows.bytes
