"""FLOPs and collectives of programs are counted with the trip counts of their loops."""

import re

import jax
import jax.numpy as jnp
import pytest

from asyppo_jax.planning.hlo import collectives, dot_flops, read_program


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


@pytest.mark.parametrize(
    ("line", "kind", "sent"),
    [
        ("f32[8]{0} all-reduce(%p), replica_groups={{0,1,2,3}}", "all-reduce", 2 * 0.75 * 32),
        ("bf16[16]{0} all-gather(%p), replica_groups=[2,4]<=[8]", "all-gather", 0.75 * 32),
        ("f32[2]{0} reduce-scatter(%p), replica_groups={{0,1,2,3}}", "reduce-scatter", 0.75 * 32),
        ("f32[8]{0} collective-permute(%p), source_target_pairs={{0,1}}", "collective-permute", 32),
        (
            "(f32[2]{0}, f32[8]{0}) all-gather-start(%p), replica_groups={{0,1,2,3}}",
            "all-gather",
            0.75 * 32,
        ),
    ],
)
def test_bytes_sent_depend_on_the_kind_and_the_group_size(line, kind, sent):
    text = f"""ENTRY %main (p: f32[8]) -> f32[8] {{
  %p = f32[8]{{0}} parameter(0)
  ROOT %c = {line}
}}"""
    traffic = collectives(read_program(text))
    assert list(traffic) == [kind]
    assert (traffic[kind].count, traffic[kind].bytes) == (1, sent)
