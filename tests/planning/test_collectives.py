"""Collectives are counted with the bytes that a device sends, as the TPU compiler writes them."""

from pathlib import Path

import pytest

from asyppo_jax.planning.collectives import collectives
from asyppo_jax.planning.hlo import read_program

FIXTURES = Path(__file__).parents[1] / "fixtures" / "hlo"


def _traffic(text):
    return {
        kind: (traffic.count, traffic.bytes)
        for kind, traffic in collectives(read_program(text)).items()
    }


@pytest.mark.parametrize(
    ("line", "kind", "sent"),
    [
        ("f32[8]{0} all-reduce(%p), replica_groups={{0,1,2,3}}", "all-reduce", 2 * 0.75 * 32),
        ("bf16[16]{0} all-gather(%p), replica_groups=[2,4]<=[8]", "all-gather", 0.75 * 32),
        ("f32[8] all-gather(%p), replica_groups=mesh['a'=2,'b'=8] {'a'}", "all-gather", 16),
        ("f32[8] all-gather(%p), replica_groups=mesh['a'=2,'b'=8] {'a','b'}", "all-gather", 30),
        ("f32[8] all-gather(%p), replica_groups=mesh['a'=2,'b'=8] {}", "all-gather", 30),
        ("f32[8] all-gather(%p), replica_groups=mesh['a'=2,'b'=8] {'b':(2)4}", "all-gather", 24),
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
    assert _traffic(text) == {kind: (1, sent)}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        # bf16[1,512,4096] is sent once before the loop, and in each of 2 iterations 4 times.
        ("windowed_product_v5e", {"collective-permute": (9, 9 * 2**22)}),
        # bf16[4096,4096] over 2 of 16 chips.
        ("groups_by_axes_v5p", {"all-gather": (1, 2**24)}),
        # bf16[4096,4096] over 4 chips, padded to 4480 rows; 288 rows are then sent to the neighbor.
        (
            "reduce_scatter_v5e",
            {
                "reduce-scatter": (1, 0.75 * 4480 * 4096 * 2),
                "collective-permute": (1, 288 * 4096 * 2),
            },
        ),
        ("reduce_scatter_sparse_core_v5p", {"reduce-scatter": (1, 15 / 16 * 2**25)}),
        # Four layers gather bf16[2048,8192] twice; one of the two runs in three fusions.
        ("asynchronous_gather_v5e", {"all-gather": (8, 8 * 7 / 8 * 2**25), "all-reduce": (1, 7)}),
    ],
)
def test_programs_of_the_tpu_compiler_are_read_rightly(file, expected):
    assert _traffic((FIXTURES / f"{file}.txt").read_text()) == expected
