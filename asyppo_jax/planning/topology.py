"""The kinds of chips that a plan knows, and the devices of a slice as the compiler names them."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyppo_jax.config import UserError
from asyppo_jax.runtime.libtpu import answer_libtpu


class PlanError(UserError, RuntimeError):
    """A plan that cannot be made; the message says why and how to fix it."""


@dataclass(frozen=True)
class Chip:
    """The numbers of a JAX device: a chip, or half of one (cloud.google.com/tpu/docs, by kind)."""

    # The limit that the compiler names when it refuses a program. It is not the published size: a
    # v5e chip has 16 GiB, of which a program may use 15.75.
    hbm_bytes: float
    flops: float  # bfloat16, per second
    bandwidth: float  # of its memory, bytes per second
    network: float  # between chips, bytes per second, summed over all links
    dimensions: int  # of a slice: its chips form a 2D or a 3D torus
    # At the rate `flops`. Read from the compiler, which counts cycles: the power of two with which
    # they give a product of 8,192 x 8,192 matrices 70 to 90% of the rate, and large additions 72 to
    # 81% of `bandwidth`.
    flops_per_cycle: int
    devices: int = 1  # per chip; with 2, the numbers are half of the published ones

    @property
    def clock(self) -> float:
        """Cycles per second."""
        return self.flops / self.flops_per_cycle


CHIPS = {
    "v5e": Chip(15.75 * 2**30, 197e12, 819e9, 200e9, 2, 2**17),
    "v5p": Chip(95.73 * 2**30, 459e12, 2765e9, 600e9, 3, 2**18),
    "v6e": Chip(31.24 * 2**30, 918e12, 1640e9, 448e9, 2, 2**19),
    "tpu7x": Chip(94.74 * 2**30, 2307e12 / 2, 7380e9 / 2, 600e9 / 2, 3, 2**19, devices=2),
}
# Slices for error messages, small to large; any other that the compiler knows works too.
TOPOLOGIES = (
    *("v5e:1x1", "v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16"),
    *("v6e:1x1", "v6e:2x2", "v6e:2x4", "v6e:4x4", "v6e:4x8", "v6e:8x8", "v6e:8x16", "v6e:16x16"),
    *("v5p:2x2x1", "v5p:2x2x2", "v5p:2x2x4", "v5p:2x4x4", "v5p:4x4x4", "v5p:4x4x8", "v5p:4x8x8"),
    *("tpu7x:2x2x1", "tpu7x:2x2x2", "tpu7x:2x2x4", "tpu7x:2x4x4", "tpu7x:4x4x4", "tpu7x:4x4x8"),
)
_KNOWN = (
    "give a chip and sizes, such as v5e:4x8, v6e:4x4, v5p:2x2x4 or tpu7x:2x2x2, or an accelerator "
    "type, such as v5p-32"
)


def chip_of(topology: str) -> Chip:
    """The kind of chip of a slice such as "v5p:4x4x2".

    Raises:
        PlanError: the kind is unknown, or the sizes do not have its number of dimensions.
    """
    kind, _, sizes = topology.partition(":")
    if kind not in CHIPS:
        raise PlanError(f"topology {topology!r} has an unknown kind of chip; {_KNOWN}")
    chip, of_kind = CHIPS[kind], [name for name in TOPOLOGIES if name.startswith(f"{kind}:")]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
        raise PlanError(
            f"topology {topology!r} has no sizes; name a slice such as {', '.join(of_kind)}"
        )
    given = sizes.count("x") + 1
    if given != chip.dimensions:
        as_large = [name for name in of_kind if num_chips(name) == num_chips(topology)]
        raise PlanError(
            f"topology {topology!r} has {given} dimension{'s' * (given > 1)}, but slices of {kind} "
            f"have {chip.dimensions}; name one such as {', '.join(as_large or of_kind)}"
        )
    return chip


def num_chips(topology: str) -> int:
    """The number of chips of a slice, the product of its sizes."""
    return math.prod(sizes_of_slice(topology))


def sizes_of_slice(topology: str) -> tuple[int, ...]:
    """The chips along each dimension of a slice such as "v5p:4x4x2"."""
    return tuple(int(size) for size in topology.partition(":")[2].split("x"))


def is_cubes(sizes: Sequence[int]) -> bool:
    """Whether a 3D slice consists of cubes of 4 x 4 x 4 chips."""
    return len(sizes) == 3 and all(size % 4 == 0 for size in sizes)


def topology_devices(name: str) -> list[Any]:
    """The devices of a slice such as "v5p:4x4x2", described by the installed compiler.

    Raises:
        PlanError: libtpu is missing, or does not know the slice; or see `chip_of`.
    """
    chip_of(name)
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError(
            "the TPU compiler is not installed; run `pip install -e '.[tpu]'` at the top of the "
            "checkout (no TPU is needed)"
        )
    answer_libtpu()
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    # Older compilers assume four chips per host, which one chip is not.
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if num_chips(name) == 1 else {}
    try:
        slice_ = topologies.get_topology_desc(platform="tpu", topology_name=name, **bounds)
        return list(slice_.devices)
    except Exception as error:  # the exception types of the compiler are private
        reason = str(error).strip().splitlines()[0][:200]
        raise PlanError(f"topology {name!r} is not available ({reason}); {_KNOWN}") from error
