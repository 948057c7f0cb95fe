"""What a device waits for, in programs in which a cycle and a byte take a second."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from asyppo_jax.planning.hlo import read_program
from asyppo_jax.planning.overlap import Torus, schedule_of, torus_of

FIXTURES = Path(__file__).parents[1] / "fixtures" / "hlo"
RING = Torus(tuple((n,) for n in range(4)), 1.0, (True,))
LINE = Torus(RING.places, 1.0, (False,))
FORTH, BACK = "{{0,1},{1,2},{2,3},{3,0}}", "{{1,0},{2,1},{3,2},{0,3}}"


def _program(*lines):
    inside = "\n  ".join(["%p = f32[25] parameter(0)", *lines])
    return read_program(f"ENTRY %main (p: f32[25]) -> f32[25] {{\n  {inside}\n}}")


def _start(name, pairs=FORTH):
    return f"%{name} = (f32[25], f32[25]) collective-permute-start(%p), source_target_pairs={pairs}"


def _done(name):
    return f"%{name}-done = f32[25] collective-permute-done(%{name})"


def _compute(cycles, name="f"):
    config = f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    return f"%{name} = f32[25] fusion(%p), kind=kLoop, calls=%unknown, {config}"


@pytest.mark.parametrize(
    ("lines", "seconds", "waits"),
    [
        ([_start("a"), _compute(300), _done("a")], 300, 0),
        ([_start("a"), _compute(30), _done("a")], 100, 70),
        ([_compute(30), _start("a"), _done("a")], 130, 100),
        # The second transfer over the same links waits for the first; the other direction does not.
        ([_start("a"), _start("b"), _compute(30), _done("a"), _done("b")], 200, 170),
        ([_start("a"), _start("b", BACK), _compute(30), _done("a"), _done("b")], 100, 70),
        # From 1 to 2 and from 0 to 2 over the same link; from 0 to 3 the other way round.
        ([_start("a", "{{1,2},{0,2}}"), _compute(30), _done("a")], 200, 170),
        ([_start("a", "{{1,2},{0,3}}"), _compute(30), _done("a")], 100, 70),
        # Nothing follows that waits for it: it ends with the program.
        ([_compute(30), _start("a")], 130, 100),
        # Two links send three quarters of it.
        ([_compute(30), "%g = f32[100] all-gather(%p), replica_groups={{0,1,2,3}}"], 180, 150),
    ],
)
def test_a_device_waits_for_what_its_computations_do_not_hide(lines, seconds, waits):
    assert schedule_of(_program(*lines), 1.0, RING) == (seconds, waits)


def test_the_clock_is_that_of_the_computations():
    program = _program(_start("a"), _compute(300), _done("a"))
    assert schedule_of(program, 10.0, RING) == (100, 70)


def test_on_an_open_line_the_last_device_sends_back_over_all_links():
    program = _program(_compute(30), _start("a"), _start("b", "{{0,3},{1,3},{2,3}}"), _done("b"))
    assert schedule_of(program, 1.0, RING) == (230, 200)
    assert schedule_of(program, 1.0, LINE) == (330, 300)


def test_a_slice_is_closed_where_it_is_made_of_cubes_or_has_16_chips():
    def closed(*sizes):
        places = itertools.product(*map(range, sizes))
        chips = [SimpleNamespace(coords=(*place, 0)) for place in places]
        return torus_of(chips, 12.0, len(sizes))

    assert closed(2, 2, 4).closed == (False,) * 3 and closed(4, 4, 8).closed == (True,) * 3
    assert closed(4, 16).closed == (False, True)
    assert closed(4, 16).link == 3.0 and closed(2, 2, 4).link == 2.0
    assert closed(2, 2).places == ((0, 0), (0, 1), (1, 0), (1, 1))


def test_a_loop_waits_in_each_of_its_iterations():
    body = "\n  ".join(["%p = f32[25] parameter(0)", _start("a"), _compute(30), _done("a")])
    program = read_program(
        f"%body (p: f32[25]) -> f32[25] {{\n  {body}\n}}\n"
        "%condition (p: f32[25]) -> pred[] {\n  %q = f32[25] parameter(0)\n}\n"
        "ENTRY %main (p: f32[25]) -> f32[25] {\n  %p = f32[25] parameter(0)\n  "
        "%w = f32[25] while(%p), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"3"}}\n}'
    )
    assert schedule_of(program, 1.0, RING) == (300, 210)


def test_a_group_has_two_links_in_each_dimension_that_it_spans():
    square = Torus(((0, 0), (1, 0), (0, 1), (1, 1)), 1.0, (False, False))
    gather = "%g = f32[100] all-gather(%p), replica_groups="
    for groups, seconds in (("{{0,1}}", 200 / 2), ("[1,4]<=[4]", 300 / 4), ("{{0,3}}", 200 / 4)):
        program = _program(_compute(1), gather + groups)
        assert schedule_of(program, 1.0, square) == (1 + seconds, seconds)


@pytest.mark.parametrize(("cycles", "waits"), [(2**10, 2**20 * 5 - 2**10), (2**23, 0)])
def test_a_reduction_on_other_cores_is_hidden_until_its_done(cycles, waits):
    text = (FIXTURES / "reduce_scatter_sparse_core_v5p.txt").read_text()
    done = "  ROOT %reduce-scatter.5.cloned.1.call-done"
    assert text.count(done) == 1
    program = read_program(text.replace(done, f"  {_compute(cycles)}\n{done}"))
    cube = Torus(tuple(itertools.product(range(2), range(2), range(4))), 1.0, (False,) * 3)
    # 15 of 16 parts of 32 MiB over six links.
    schedule = schedule_of(program, 1.0, cube)
    assert schedule == (cycles + waits, waits)


@pytest.mark.parametrize(("cycles", "hidden"), [(0, 0.0), (2**20, 2.0**20), (2**30, 7 / 8 * 2**24)])
def test_a_gather_in_three_fusions_is_hidden_by_the_one_in_the_middle(cycles, hidden):
    text = (FIXTURES / "asynchronous_gather_v5e.txt").read_text()
    calls = "calls=%async_collective_fusion.31"
    assert text.count(calls) == 1
    program = read_program(text.replace(calls, f'{calls}, {{"estimated_cycles":"{cycles}"}}'))
    eight = Torus(tuple((n,) for n in range(8)), 1.0, (False,))
    if not cycles:  # the compiler has estimated nothing
        assert schedule_of(program, 1.0, eight) is None
        return
    schedule = schedule_of(program, 1.0, eight)
    assert schedule is not None
    seconds, waits = schedule
    # Each of four layers gathers twice, one of the two without overlap; the loss is reduced.
    gather = 7 / 8 * 2**25 / 2
    assert waits == pytest.approx(4 * (2 * gather - hidden) + 7 / 2)
    assert seconds == pytest.approx(waits + 4 * cycles)
