"""How long a device waits for collectives, by the order of a compiled program's instructions.

The TPU compiler starts a transfer early and computes until it needs the result. Its text has the
instructions in the order in which they run, with a start and a done for such a transfer, and an
estimate of the cycles of most computations, which knows the memory's bandwidth, too.
`scheduled_seconds` goes through them with one clock for the device and one for each link.

A collective over d dimensions of the torus uses two links in each of them. A permute uses one link,
which it shares with others if its pairs are not neighbors.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyppo_jax.planning.collectives import kind_of, sent_bytes, started
from asyppo_jax.planning.hlo import Instruction, Program, called_by
from asyppo_jax.planning.replica_groups import first_group

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_PAIR = re.compile(r"\{(\d+),(\d+)\}")
_CHANNEL = re.compile(r"channel_id=(\d+)")
Place = tuple[int, ...]


@dataclass(frozen=True)
class Torus:
    """The links of a slice: each chip has two per dimension, one to each side."""

    places: tuple[Place, ...]  # of each device, in the order of the program's partitions
    link: float  # bytes per second that a link sends in one direction

    def seconds(self, kind: str, size: float, i: Instruction) -> float:
        """The time of a collective in which each device sends `size` bytes."""
        if kind == "collective-permute":
            pairs = [(int(a), int(b)) for a, b in _PAIR.findall(_pairs(i))]
            hops = max((self._hops(*pair) for pair in pairs), default=1)
            return size * max(hops, 1) / self.link
        group = [self.places[n] for n in first_group(i.text, len(self.places))]
        spread = sum(len(set(along)) > 1 for along in zip(*group, strict=True))
        return size / (2 * max(spread, 1) * self.link)

    def _hops(self, first: int, second: int) -> int:
        """Links between two devices, on a torus that is closed in every dimension."""
        sizes = [max(along) + 1 for along in zip(*self.places, strict=True)]
        distances = [
            abs(a - b) for a, b in zip(self.places[first], self.places[second], strict=True)
        ]
        return sum(min(d, n - d) for d, n in zip(distances, sizes, strict=True))


def _pairs(i: Instruction) -> str:
    found = re.search(r"source_target_pairs=\{(.*?)\}\}", i.text)
    return found.group(1) + "}" if found else ""


def scheduled_seconds(program: Program, clock: float, torus: Torus) -> tuple[float, float]:
    """Seconds of one run, and those of them in which the device waits for collectives.

    `clock` is the device's cycles per second. What the compiler does not estimate, as kernels and
    copies, takes no time and hides no transfer. Both are 0 if it estimates nothing.
    """
    if not any(map(_cycles, (i for body in program.computations.values() for i in body))):
        return 0.0, 0.0
    return _Schedule(program, clock, torus).run(program.entry)


def _cycles(i: Instruction) -> float:
    found = _CYCLES.search(i.text)
    return float(found.group(1)) if found else 0.0


def _inner(program: Program, name: str, i: Instruction) -> Iterator[tuple[str, float]]:
    """The computations that an instruction runs one after the other, and how often."""
    if i.opcode in ("while", "conditional", "call"):
        for inner in called_by(i):
            if inner in program.computations and program.runs.get(name):
                yield inner, program.runs.get(inner, 0.0) / program.runs[name]


class _Schedule:
    """The clocks of a device and of its links while it runs a program."""

    def __init__(self, program: Program, clock: float, torus: Torus) -> None:
        self._program, self._clock, self._torus = program, clock, torus
        self._known: dict[str, tuple[float, float]] = {}

    def run(self, name: str) -> tuple[float, float]:
        """The seconds that a computation takes, and those of them in which the device waits."""
        if name not in self._known:
            self._known[name] = self._run(name)
        return self._known[name]

    def _run(self, name: str) -> tuple[float, float]:
        now, waited = 0.0, 0.0
        free: dict[str, float] = {}  # when the links of a kind of transfer are free again
        ends: dict[str, float] = {}  # of the transfers that have started
        for i in self._program.computations[name]:
            for inner, times in _inner(self._program, name, i):
                seconds, exposed = self.run(inner)
                now, waited = now + times * seconds, waited + times * exposed
            now += _cycles(i) / self._clock
            until = now
            if transfer := self._transfer(name, i):
                key, kind, collective, is_async = transfer
                links = _links(collective)
                size = sent_bytes(kind, collective)
                begins = max(now, free.get(links, 0.0))
                ends[key] = free[links] = begins + self._torus.seconds(kind, size, collective)
                until = now if is_async else ends.pop(key)
            elif key := self._done(i):
                until = ends.pop(key, now)
            waited, now = waited + max(until - now, 0.0), max(until, now)
        last = max(ends.values(), default=now)  # what a later computation waits for
        return max(last, now), waited + max(last - now, 0.0)

    def _transfer(self, name: str, i: Instruction) -> tuple[str, str, Instruction, bool] | None:
        """A collective that starts here: its key, kind and instruction, and if it has a done."""
        if kind := kind_of(i, name):
            return i.name, kind, i, i.opcode.endswith("-start")
        for computation, collective, is_async in self._fused(i):
            if kind := kind_of(collective, computation):
                return _channel(collective), kind, collective, is_async
        return None

    def _fused(self, i: Instruction) -> Iterator[tuple[str, Instruction, bool]]:
        """The collectives inside a fusion that it starts, or starts and ends."""
        for name in called_by(i) if i.opcode == "fusion" else ():
            instructions = self._program.computations.get(name, [])
            begun = started(instructions)
            for inner in instructions:
                if inner.name in begun or "async_collective_fusion_config" not in inner.text:
                    yield name, inner, inner.name in begun

    def _done(self, i: Instruction) -> str:
        """The key of the transfer that an instruction waits for; "" if it waits for none."""
        if i.opcode.endswith("-done"):
            return i.operands[0] if i.operands else ""
        for name in called_by(i) if i.opcode == "fusion" else ():
            instructions: Sequence[Instruction] = self._program.computations.get(name, [])
            if any('"AsyncCollectiveDone"' in inner.text for inner in instructions):
                return next((_channel(x) for x in instructions if _CHANNEL.search(x.text)), "")
        return ""


def _channel(i: Instruction) -> str:
    found = _CHANNEL.search(i.text)
    return f"channel {found.group(1)}" if found else i.name


def _links(i: Instruction) -> str:
    """Transfers with the same links wait for each other; permutes have those of their pairs."""
    return _pairs(i) if "source_target_pairs" in i.text else "groups"


def torus_of(devices: Sequence[Any], network: float, dimensions: int) -> Torus:
    """The torus of a slice's devices, whose links together send `network` bytes per second."""
    places = tuple(tuple(int(x) for x in device.coords)[:dimensions] for device in devices)
    return Torus(places, network / (2 * dimensions))
