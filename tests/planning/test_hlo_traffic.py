"""Moved bytes: slices and in-place updates count by their size, loop bodies by their trips."""

import jax
import jax.numpy as jnp
import pytest

from asyppo_jax.planning.hlo import read_program
from asyppo_jax.planning.hlo_traffic import moved_bytes

# Like a TPU program: a loop over 4 layers that slices a layer's weights from a stack in a fusion,
# updates 2 of the 64 rows of a cache in place, calls a kernel on it, and keeps its result on chip.
PROGRAM = """HloModule example

%sliced (param_0: bf16[4,16,8], param_1: s32[]) -> bf16[16,8] {
  %param_0 = bf16[4,16,8]{2,1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %slice.1 = bf16[1,16,8]{2,1,0} dynamic-slice(%param_0, %param_1), dynamic_slice_sizes={1,16,8}
  ROOT %bitcast.1 = bf16[16,8]{1,0} bitcast(%slice.1)
}

%product (param_0.1: f32[2,16], param_1.1: bf16[4,16,8], param_2.1: s32[]) -> f32[2,8] {
  %param_0.1 = f32[2,16]{1,0} parameter(0)
  %param_1.1 = bf16[4,16,8]{2,1,0} parameter(1)
  %param_2.1 = s32[] parameter(2)
  %weights = bf16[16,8]{1,0} fusion(%param_1.1, %param_2.1), kind=kLoop, calls=%sliced
  ROOT %convolution.1 = f32[2,8]{1,0} convolution(%param_0.1, %weights), dim_labels=bf_io->bf
}

%rows (param_0.2: bf16[64,8], param_1.2: s32[2,1], param_2.2: bf16[2,8]) -> bf16[64,8] {
  %param_0.2 = bf16[64,8]{1,0} parameter(0)
  %param_1.2 = s32[2,1]{1,0} parameter(1)
  %param_2.2 = bf16[2,8]{1,0} parameter(2)
  ROOT %scatter.1 = bf16[64,8]{1,0} scatter(%param_0.2, %param_1.2, %param_2.2), to_apply=%add
}

%body (carry: (s32[], f32[2,16], bf16[4,16,8], bf16[64,8], s32[2,1], bf16[2,8])) -> () {
  %carry = (s32[], f32[2,16], bf16[4,16,8], bf16[64,8], s32[2,1], bf16[2,8]) parameter(0)
  %i = s32[]{:S(1)} get-tuple-element(%carry), index=0
  %x = f32[2,16]{1,0:S(1)} get-tuple-element(%carry), index=1
  %stack = bf16[4,16,8]{2,1,0} get-tuple-element(%carry), index=2
  %cache = bf16[64,8]{1,0} get-tuple-element(%carry), index=3
  %positions = s32[2,1]{1,0:S(1)} get-tuple-element(%carry), index=4
  %new = bf16[2,8]{1,0} get-tuple-element(%carry), index=5
  %fusion.1 = f32[2,8]{1,0:S(1)} fusion(%x, %stack, %i), kind=kOutput, calls=%product
  %fusion.2 = bf16[64,8]{1,0} fusion(%cache, %positions, %new), kind=kCustom, calls=%rows
  %kernel.7 = f32[2,8]{1,0:S(1)} custom-call(%fusion.2), custom_call_target="tpu_custom_call"
  %copy.1 = bf16[2,8]{1,0} copy(%new)
  ROOT %tuple.1 = (s32[], f32[2,16]) tuple(%i, %x)
}

%condition (carry.1: (s32[])) -> pred[] {
  %carry.1 = (s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%carry.1), index=0
  %limit = s32[] constant(4)
  ROOT %compare.1 = pred[]{:S(1)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (start: (s32[])) -> (s32[]) {
  %start = (s32[]) parameter(0)
  ROOT %while.1 = (s32[]) while(%start), condition=%condition, body=%body
}
"""


def test_moved_bytes_of_slices_in_place_updates_and_on_chip_arrays():
    weights, row, kernel = 16 * 8 * 2, 2 * 8 * 2, 100.0
    # The rows are read and written, as is the copy of `new`.
    iteration = weights + (row + row) + kernel + (row + row)
    condition = 2 * 4  # its two numbers
    moved = moved_bytes(read_program(PROGRAM), {"kernel": kernel})
    assert moved == 4 * (iteration + condition)


def test_a_kernel_without_an_entry_reads_all_of_its_operands():
    program = read_program(PROGRAM)
    assert moved_bytes(program, {}) - moved_bytes(program, {"kernel": 0.0}) == 4 * 64 * 8 * 2


@pytest.mark.parametrize("iterations", [3, 11])
def test_a_compiled_loop_moves_its_arrays_once_per_iteration(iterations):
    """On a CPU no array is on chip: two are read and one is written, which may then be copied."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 64), (64, 64))]
    loop = jax.jit(lambda x, w: jax.lax.fori_loop(0, iterations, lambda _, y: y @ w, x))
    text = loop.lower(*shapes).compile().as_text()
    assert text
    moved = moved_bytes(read_program(text), {})
    array = 64 * 64 * 4
    assert iterations * 3 * array <= moved < iterations * (5 * array + 100) + 3 * array
