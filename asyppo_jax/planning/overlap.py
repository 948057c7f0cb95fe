"""How long a device waits for collectives, by the order of a compiled program's instructions.

The TPU compiler starts a transfer early and computes until it needs the result. Its text has the
instructions in the order in which they run, with a start and a done for such a transfer, and an
estimate of the cycles of most computations, which knows the memory's bandwidth, too.
`schedule_of` goes through them with one clock for the device and one for each link.

A collective over d dimensions of the torus uses two links in each of them. A permute takes as long
as the link with most of its pairs, which go along one dimension after the other.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from asyppo_jax.planning.collectives import is_in_steps, kind_of, sent_bytes, started
from asyppo_jax.planning.hlo import Instruction, Program, called_by
from asyppo_jax.planning.replica_groups import first_group
from asyppo_jax.planning.topology import is_cubes

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_PAIR = re.compile(r"\{(\d+),(\d+)\}")
_CHANNEL = re.compile(r"channel_id=(\d+)")
Place = tuple[int, ...]


@dataclass(frozen=True)
class Torus:
    """The links of a slice: each chip has two per dimension, one to each side."""

    places: tuple[Place, ...]  # of each device, in the order of the program's partitions
    link: float  # bytes per second that a link sends in one direction
    closed: tuple[bool, ...]  # for each dimension: whether its last chip has a link to the first

    def seconds(self, kind: str, size: float, i: Instruction) -> float:
        """The time of a collective in which each device sends `size` bytes."""
        if kind == "collective-permute":
            load = Counter(link for pair in _PAIR.findall(_pairs(i)) for link in self._route(*pair))
            return size * max(load.values(), default=1) / self.link
        group = [self.places[n] for n in first_group(i.text, len(self.places))]
        spread = sum(len(set(along)) > 1 for along in zip(*group, strict=True))
        return size / (2 * max(spread, 1) * self.link)

    def _route(self, first: str, second: str) -> Iterator[tuple[Place, int, int]]:
        """The links (place, dimension, direction) between two devices, one dimension at a time."""
        here, goal = list(self.places[int(first)]), self.places[int(second)]
        for dimension, length in enumerate(self._sizes):
            ahead = (goal[dimension] - here[dimension]) % length
            is_ahead = goal[dimension] > here[dimension]
            if self.closed[dimension]:
                is_ahead = 2 * ahead <= length
            while here[dimension] != goal[dimension]:
                step = 1 if is_ahead else -1
                yield tuple(here), dimension, step
                here[dimension] = (here[dimension] + step) % length

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(max(along) + 1 for along in zip(*self.places, strict=True))


def _pairs(i: Instruction) -> str:
    found = re.search(r"source_target_pairs=\{(.*?)\}\}", i.text)
    return found.group(1) + "}" if found else ""


class Schedule(NamedTuple):
    """The seconds of one run, and those of them in which the device waits for collectives."""

    seconds: float
    waiting_seconds: float


def schedule_of(program: Program, clock: float, torus: Torus) -> Schedule | None:
    """The time of a program; None if the compiler has not estimated the cycles of anything.

    `clock` is the device's cycles per second. What has no estimate, as kernels and copies, takes no
    time and hides no transfer.
    """
    if not any(_cycles(i) for body in program.computations.values() for i in body):
        return None
    return _Clocks(program, clock, torus).run(program.entry)


def _cycles(i: Instruction) -> float:
    found = _CYCLES.search(i.text)
    return float(found.group(1)) if found else 0.0


def _inner(program: Program, name: str, i: Instruction) -> Iterator[tuple[str, float]]:
    """The computations that an instruction runs one after the other, and how often."""
    if i.opcode in ("while", "conditional", "call"):
        for inner in called_by(i):
            if inner in program.computations and program.runs.get(name):
                yield inner, program.runs.get(inner, 0.0) / program.runs[name]


class _Clocks:
    """The clocks of a device and of its links while it runs a program."""

    def __init__(self, program: Program, clock: float, torus: Torus) -> None:
        self._program, self._clock, self._torus = program, clock, torus
        self._known: dict[str, Schedule] = {}

    def run(self, name: str) -> Schedule:
        """The time of a computation with the loops and branches that it runs."""
        if name not in self._known:
            self._known[name] = self._run(name)
        return self._known[name]

    def _run(self, name: str) -> Schedule:
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
            elif i.opcode.endswith("-update") and i.operands[0] in ends:  # before its done
                ends[i.name] = ends.pop(i.operands[0])
            elif key := self._done(i):
                until = ends.pop(key, now)
            waited, now = waited + max(until - now, 0.0), max(until, now)
        last = max([now, *ends.values()])  # what a later computation waits for
        return Schedule(last, waited + last - now)

    def _transfer(self, name: str, i: Instruction) -> tuple[str, str, Instruction, bool] | None:
        """A collective that starts here: its key, kind and instruction, and if it has a done."""
        if kind := kind_of(i, name):
            return i.name, kind, i, i.opcode.endswith("-start")
        for computation, collective, is_async in self._fused(i):
            if kind := kind_of(collective, computation):
                return _channel(collective), kind, collective, is_async
        if i.opcode.endswith("-start"):  # of a computation, as on a chip's sparse cores
            for inner in called_by(i):
                for collective in self._program.computations.get(inner, []):
                    if kind := kind_of(collective, inner):
                        return i.name, kind, collective, True
        return None

    def _fused(self, i: Instruction) -> Iterator[tuple[str, Instruction, bool]]:
        """The collectives inside a fusion that it starts, or starts and ends."""
        for name in called_by(i) if i.opcode == "fusion" else ():
            instructions = self._program.computations.get(name, [])
            begun = started(instructions)
            for inner in instructions:
                if inner.name in begun or not is_in_steps(inner):
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
    """The torus of a slice's devices, whose links together send `network` bytes per second.

    A 3D slice is closed if it consists of cubes of 4 x 4 x 4 chips, a 2D slice in dimensions of 16.
    """
    places = tuple(tuple(int(x) for x in device.coords)[:dimensions] for device in devices)
    sizes = [max(along) + 1 for along in zip(*places, strict=True)]
    closed = tuple(is_cubes(sizes) if dimensions == 3 else size == 16 for size in sizes)
    return Torus(places, network / (2 * dimensions), closed)
