"""The bytes that a compiled program reads from and writes to HBM, from its HLO text.

Every instruction outside of fusions reads its operands and writes its result. A fusion that slices
an operand reads only the slice, and one that updates an array in place writes only the updated
rows. Arrays in on-chip memory (VMEM) are not counted. The HLO text does not show what a kernel
reads, so the caller gives it.
"""

from collections.abc import Mapping

from asyppo_jax.planning.hlo import Instruction, Program, called_by

# Instructions that move nothing, and loops and branches, whose bodies are counted on their own.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"),
    *("while", "conditional", "call", "partition-id", "replica-id", "opt-barrier", "reshape"),
}
_SLICES = ("dynamic-slice", "slice", "gather")
_IN_PLACE = ("dynamic-update-slice", "scatter")

Body = dict[str, Instruction]


def moved_bytes(program: Program, kernels: Mapping[str, float]) -> float:
    """Bytes that one chip reads from and writes to HBM.

    `kernels` has the bytes moved by one call of a kernel, by the prefix of its name. Other kernels
    are assumed to read their operands once and to write their results once.
    """
    bodies = {
        name: {i.name: i for i in instructions}
        for name, instructions in program.computations.items()
    }
    total = 0.0
    for name in _run_computations(program):
        body, runs = bodies[name], program.runs.get(name, 0.0)
        total += runs * sum(_moved(i, body, bodies, kernels) for i in body.values() if runs)
    return total


def _run_computations(program: Program) -> set[str]:
    """The entry computation, and those run by loops, branches and calls, but not inside fusions."""
    called = {name: set[str]() for name in program.computations}
    callees: set[str] = set()
    for name, instructions in program.computations.items():
        for i in instructions:
            callees |= set(called_by(i))
            if i.opcode in ("while", "conditional", "call"):
                called[name] |= set(called_by(i))
    reached, pending = set[str](), [name for name in called if name not in callees]
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending += called.get(name, ())
    return reached & set(program.computations)


def _moved(
    i: Instruction, body: Body, bodies: Mapping[str, Body], kernels: Mapping[str, float]
) -> float:
    if i.opcode in _FREE or i.opcode.endswith(("-done", "-update")) or "AllocateBuffer" in i.text:
        return 0.0
    for kernel, size in kernels.items():
        if i.opcode == "custom-call" and i.name.startswith(kernel):
            return size
    operands = [body[name] for name in i.operands if name in body]
    if i.opcode in _IN_PLACE:  # only the updated rows are read and written
        return 2.0 * _updated_bytes(i, body) if i.on_chip == (False,) else 0.0
    if i.opcode in _SLICES:
        return float(i.hbm_bytes) + (i.bytes if operands and operands[0].hbm_bytes else 0)
    fused = _fused(i, bodies)
    if fused is None:
        return float(i.hbm_bytes + sum(o.hbm_bytes for o in operands))
    read = sum(
        _read(fused, index, bodies, o.hbm_bytes) for index, o in enumerate(operands) if o.hbm_bytes
    )
    return float(read + _written(i, fused, bodies))


def _fused(i: Instruction, bodies: Mapping[str, Body]) -> Body | None:
    """The fused computation of a fusion; None for any other instruction."""
    return bodies.get(called_by(i)[0]) if i.opcode == "fusion" else None


def _read(body: Body, index: int, bodies: Mapping[str, Body], full: int) -> int:
    """Bytes that a fusion reads of its operand number `index`, which has `full` bytes."""
    parameter = next(
        i for i in body.values() if i.opcode == "parameter" and i.text.startswith(f"{index})")
    )
    return min(full, _used(body, parameter, bodies, full))


def _used(body: Body, value: Instruction, bodies: Mapping[str, Body], full: int) -> int:
    if value is list(body.values())[-1]:  # the result of the fusion, so all of it is used
        return full
    total = 0
    for user in body.values():
        if value.name not in user.operands:
            continue
        position = user.operands.index(value.name)
        fused = _fused(user, bodies)
        if user.opcode in _SLICES and position == 0:
            total += user.bytes
        elif user.opcode in _IN_PLACE and position == 0:
            continue  # rows updated in place are counted as written
        elif user.opcode in ("bitcast", "reshape"):
            total += _used(body, user, bodies, full)
        elif fused is not None:
            total += _read(fused, position, bodies, full)
        else:
            return full
    return total


def _written(i: Instruction, body: Body, bodies: Mapping[str, Body]) -> int:
    """Bytes that a fusion writes; for arrays updated in place, only the updated rows."""
    size = i.hbm_bytes
    for inner in body.values():
        fused = _fused(inner, bodies)
        if fused is not None and inner.bytes == i.bytes:
            size = min(size, _written(i, fused, bodies))
        if inner.opcode in _IN_PLACE and inner.bytes <= size:
            size += _updated_bytes(inner, body) - inner.bytes
    return size


def _updated_bytes(i: Instruction, body: Body) -> int:
    """Bytes of the rows that an in-place operation writes.

    The operands of dynamic-update-slice are (array, rows, indices), those of scatter are
    (array, indices, rows).
    """
    rows = body.get(i.operands[1 if i.opcode == "dynamic-update-slice" else -1])
    return i.bytes if rows is None else rows.bytes
