"""The bits in which a run differs from one that was never interrupted."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from asyppo_jax.runs.checkpoint import saved_steps
from asyppo_jax.runs.metrics import METRICS_FILE, read_metrics
from asyppo_jax.runtime.paths import checkpoint_directory, state_directory

_TIMED = ("time/", "rollout/tokens_per_s")  # metrics that differ from run to run
_FLOAT_BITS = 64
Row = dict[str, Any]


def lost_bits(workdir: Path, reference: Path, step: int | None = None) -> int:
    """Bits of the state, the data's position and the metrics at a step that are not as expected.

    `reference` is a run that was never interrupted and has the checkpoint of every step. `step` is
    that of the run's last checkpoint, None for a finished run. What is missing or unexpected counts
    with all its bits.
    """
    finished = step is None
    if step is None:
        step = saved_steps(str(reference))[-1]
    if step not in saved_steps(str(workdir)):
        return _size(_state(reference, step))
    position, expected_position = (_position(x, step) for x in (workdir, reference))
    # The metrics of a step that still has to be evaluated are there, and written afterwards.
    unwritten = position.pop("unevaluated", None) is not None and not finished
    expected_position.pop("unevaluated", None)
    lost = _FLOAT_BITS * (position != expected_position)
    lost += tree_bits(_state(workdir, step), _state(reference, step))
    rows, expected_rows = (_rows(x, step) for x in (workdir, reference))
    if unwritten:
        rows.pop(step, None)
        expected_rows.pop(step)
    return lost + row_bits(rows, expected_rows)


def tree_bits(tree: Any, expected: Any) -> int:
    """Differing bits of two trees of arrays; all of the expected ones if the trees differ."""
    arrays, structure = jax.tree.flatten(tree)
    expected_arrays, expected_structure = jax.tree.flatten(expected)
    if structure != expected_structure:
        return max(_size(expected), 1)
    return sum(map(_array_bits, arrays, expected_arrays))


def row_bits(rows: dict[int, Row], expected: dict[int, Row]) -> int:
    """Differing bits of metrics, {step: {name: value}}; None, for NaN, is equal to None."""
    lost = 0
    for step in rows.keys() | expected.keys():
        row, expected_row = rows.get(step, {}), expected.get(step, {})
        for name in row.keys() | expected_row.keys():
            pair = [float("nan") if x is None else x for x in _pair(row, expected_row, name)]
            lost += _FLOAT_BITS if len(pair) < 2 else _array_bits(*map(np.float64, pair))
    return lost


def _pair(row: Row, expected_row: Row, name: str) -> list[Any]:
    return [x[name] for x in (row, expected_row) if name in x]


def _array_bits(array: Any, expected: Any) -> int:
    array, expected = _bytes(array), _bytes(expected)
    if array.shape != expected.shape:
        return max(8 * expected.size, 1)
    return int(np.bitwise_count(array ^ expected).sum())


def _bytes(array: Any) -> np.ndarray:
    return np.frombuffer(np.ascontiguousarray(np.asarray(array)).tobytes(), np.uint8)


def _size(tree: Any) -> int:
    return sum(8 * _bytes(leaf).size for leaf in jax.tree.leaves(tree))


def _state(workdir: Path, step: int) -> Any:
    """The arrays of a checkpoint, on whatever devices they were saved."""
    directory = state_directory(workdir, step)
    handler = ocp.PyTreeCheckpointHandler()  # a manager would clean up the directory
    tree = handler.metadata(directory).tree
    numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    state = handler.restore(directory, args=ocp.args.PyTreeRestore(restore_args=numpy))
    handler.close()
    return state


def _position(workdir: Path, step: int) -> dict[str, Any]:
    return json.loads((checkpoint_directory(workdir) / str(step) / "data" / "metadata").read_text())


def _rows(workdir: Path, step: int) -> dict[int, Row]:
    """Rows up to a step; of two rows of a step, which a run may not have, only one would stay."""
    rows: dict[int, Row] = {}
    for row in read_metrics(workdir / METRICS_FILE):
        values = {k: v for k, v in row.items() if not k.startswith(_TIMED) and k != "step"}
        again = row["step"] in rows
        if row["step"] <= step:
            rows[row["step"]] = values | ({"written again": 1.0} if again else {})
    return rows
