"""Cloud TPU's accelerator types, such as v5p-32: how many chips they have, and of which shape.

A type is what `gcloud` and xpk call a slice. The compiler calls it by its shape, such as
v5p:2x2x4. Sources: cloud.google.com/tpu/docs, the pages of v4, v5e, v5p and v6e.
"""

import re

from asyppo_jax.config import UserError

# The family of a type -> the kind of chip, and what its number counts per chip: v4 and v5p count
# TensorCores, of which a chip has two; v5litepod (v5e) and v6e count chips.
FAMILIES = {"v4": ("v4", 2), "v5litepod": ("v5e", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1)}
# Chips -> the shape of a slice.
_PLANE = {
    **{1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"},
    **{128: "8x16", 256: "16x16"},
}
_CUBOID = {
    **{4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8"},
    **{256: "4x8x8", 512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16", 4096: "16x16x16"},
}
_MOST = {"v4": 4096, "v5p": 6144}  # chips; every multiple of 64, a cube of 4x4x4, is a slice


class AcceleratorError(UserError, ValueError):
    """A name that is no accelerator type; the message says which are."""


def is_type(name: str) -> bool:
    """Whether a name is written like an accelerator type, v5p-32, and not like v5p:2x2x4."""
    return re.fullmatch(r"\w+-\w+", name) is not None


def chips_of_type(name: str) -> int:
    """The number of chips of an accelerator type: 16 for v5p-32, 16 for v5litepod-16.

    Raises:
        AcceleratorError: there is no such type.
    """
    family, _, number = name.partition("-")
    if of_shape := _type_of_shape(name):
        raise AcceleratorError(f"{name!r} is a shape; its accelerator type is {of_shape}")
    if family == "v5e":
        raise AcceleratorError(f"{name!r} is called v5litepod-{number}")
    if family not in FAMILIES:
        raise AcceleratorError(
            f"{name!r} is no accelerator type that is known here; give one of {_EXAMPLES}"
        )
    kind, per_chip = FAMILIES[family]
    chips, rest = divmod(int(number) if re.fullmatch(r"[1-9]\d*", number) else 0, per_chip)
    is_cubes = chips > 0 and chips % 64 == 0 and chips <= _MOST.get(kind, 0)
    if rest or not (chips in _shapes(kind) or is_cubes):
        names = [f"{family}-{size * per_chip}" for size in _shapes(kind)]
        more = f" and larger multiples of {family}-{64 * per_chip}" if kind in _MOST else ""
        known = ", ".join(names)
        raise AcceleratorError(f"{name!r} is no accelerator type; {family} has {known}{more}")
    return chips


def slice_name(name: str) -> str:
    """The compiler's name of a slice: v5p:2x2x4 for the type v5p-32; other names are unchanged.

    Raises:
        AcceleratorError: it is written like a type but is none, or its slice has several shapes.
    """
    if not is_type(name):
        return name
    chips, kind = chips_of_type(name), FAMILIES[name.partition("-")[0]][0]
    if chips not in _shapes(kind):
        raise AcceleratorError(
            f"{name} has {chips} chips, which form slices of several shapes; give its sizes, such "
            f"as {kind}:4x4x{chips // 16}"
        )
    return f"{kind}:{_shapes(kind)[chips]}"


def _type_of_shape(name: str) -> str:
    """The accelerator type of the slice v5p:2x2x4, "" if it is none."""
    kind, _, shape = name.partition(":")
    for family, (of, per_chip) in FAMILIES.items():
        chips = [size for size, of_size in _shapes(of).items() if of_size == shape]
        if kind == of and chips:
            return f"{family}-{chips[0] * per_chip}"
    return ""


def _shapes(kind: str) -> dict[int, str]:
    return _CUBOID if kind in _MOST else _PLANE


_EXAMPLES = "v5litepod-N and v6e-N (N chips), v5p-N and v4-N (N TensorCores, two per chip)"
