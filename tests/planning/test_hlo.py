"""Products of programs are counted with the trip counts of their loops."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from asyppo_jax.planning.hlo import dot_flops, read_program

FIXTURES = Path(__file__).parents[1] / "fixtures" / "hlo"


def _compiled(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = jax.jit(function).lower(*arguments).compile().as_text()
    assert text
    return text


def test_products_in_nested_loops_count_as_often_as_they_run():
    def body(x, _):
        return jnp.tanh(x @ x), None

    def outer(x, _):
        return jax.lax.scan(body, x, length=5)[0], None

    text = _compiled(lambda x: jax.lax.scan(outer, x, length=3)[0], (32, 32))
    assert dot_flops(read_program(text)) == 3 * 5 * 2 * 32**3


def test_a_trip_count_without_annotation_is_read_from_the_condition():
    text = _compiled(lambda x: jax.lax.fori_loop(0, 11, lambda _, y: jnp.tanh(y @ y), x), (16, 16))
    unannotated = re.sub(r'"known_trip_count":\{"n":"\d+"\},?', "", text)
    assert unannotated != text
    assert dot_flops(read_program(unannotated, unknown_trips={"": 5.0})) == 11 * 2 * 16**3


def test_an_unknown_trip_count_is_given_by_the_caller():
    def loop(x):
        return jax.lax.while_loop(lambda y: jnp.sum(y) < 9, lambda y: jnp.tanh(y @ y), x)

    text = _compiled(loop, (16, 16))
    assert dot_flops(read_program(text, unknown_trips={"": 7.0})) == 7 * 2 * 16**3


def test_unknown_trip_counts_are_chosen_by_the_innermost_scope_with_an_entry():
    def loop(x, scope):
        with jax.named_scope(scope):
            return jax.lax.while_loop(lambda y: jnp.sum(y) < 9, lambda y: jnp.tanh(y @ y), x)

    def both(x):
        with jax.named_scope("outer"):
            return loop(loop(x, "first"), "second")

    program = read_program(_compiled(both, (16, 16)), unknown_trips={"outer": 3.0, "second": 7.0})
    assert dot_flops(program) == (3 + 7) * 2 * 16**3


def test_a_scope_is_recognised_inside_the_names_of_transformations():
    def loss(x, count):
        with jax.named_scope("scope"):
            return jnp.sum(jax.lax.fori_loop(0, count, lambda _, y: jnp.tanh(y @ y), x))

    def tangent(x, count):
        return jax.jvp(lambda y: loss(y, count), (x,), (x,))[1]

    shapes = jax.ShapeDtypeStruct((16, 16), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    text = jax.jit(tangent).lower(*shapes).compile().as_text() or ""
    assert "jvp(scope)" in text
    counts = [dot_flops(read_program(text, unknown_trips={"scope": n})) for n in (1.0, 4.0)]
    assert counts[1] == 4 * counts[0] > 0


def _loop(step: str, start: str) -> str:
    """A loop over x @ x while its counter is below 11."""
    return f"""%added (a: s32[], b: s32[]) -> s32[] {{
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %sum = s32[] add(%a, %b)
}}

%body (p: (f32[16,16], s32[], s32[])) -> (f32[16,16], s32[], s32[]) {{
  %p = (f32[16,16], s32[], s32[]) parameter(0)
  %x = f32[16,16] get-tuple-element(%p), index=0
  %i = s32[] get-tuple-element(%p), index=1
  %carried = s32[] get-tuple-element(%p), index=2
  %three = s32[] constant(3)
  %next = s32[] {step}
  %product = f32[16,16] dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %t = (f32[16,16], s32[], s32[]) tuple(%product, %next, %carried)
}}

%condition (q: (f32[16,16], s32[], s32[])) -> pred[] {{
  %q = (f32[16,16], s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%q), index=1
  %limit = s32[] constant(11)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}}

ENTRY %main (x: f32[16,16], n: s32[]) -> f32[16,16] {{
  %x = f32[16,16] parameter(0)
  %n = s32[] parameter(1)
  %zero = s32[] constant(0)
  %five = s32[] constant(5)
  %start = s32[] copy(%{start})
  %t = (f32[16,16], s32[], s32[]) tuple(%x, %start, %five)
  %w = (f32[16,16], s32[], s32[]) while(%t), condition=%condition, body=%body
  ROOT %y = f32[16,16] get-tuple-element(%w), index=0
}}"""


@pytest.mark.parametrize(
    ("step", "start", "trips"),
    [
        ("add(%i, %three)", "zero", 4),  # 0, 3, 6, 9
        ("add(%three, %i)", "five", 2),  # 5, 8
        ("add(%i, %carried)", "zero", 3),  # 0, 5, 10: the step is an element of the loop's tuple
        ("fusion(%i, %three), kind=kLoop, calls=%added", "zero", 4),
        ("add(%i, %three)", "n", 4),  # a start that is not known is taken for 0
        ("custom-call(%i)", "zero", 11),  # a step that is not known for 1
    ],
)
def test_the_step_and_the_start_of_a_counter_are_read(step, start, trips):
    assert dot_flops(read_program(_loop(step, start))) == trips * 2 * 16**3


def test_a_windowed_product_that_is_unrolled_by_two_runs_half_as_often():
    # x @ w with w sharded over the 8 chips of v5e:2x4: the counter goes up by 2 to 4.
    text = (FIXTURES / "windowed_product_v5e.txt").read_text()
    program = read_program(text)
    assert program.runs["wide.windowed_dot_general_body_ag.clone.sunk"] == 2
