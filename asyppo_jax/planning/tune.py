"""The mesh, microbatch, ZeRO stage and remat of the shortest step that fits a slice, by search.

The TPU compiler plans the candidates of `candidates.py`, one phase at a time, until the formula of
all others is longer than the best plan. The first ones differ in `model`; what the compiler makes
of them, relative to the formula, says which comes next. What was compiled is kept in a file of JSON
lines, so a search that was stopped can go on.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from asyppo_jax.planning.candidates import Candidate, Setting, candidates
from asyppo_jax.planning.plan import PhasePlan
from asyppo_jax.planning.topology import PlanError

# The settings of a candidate on which the program of a phase depends; that of the actor on all.
_READ = {"prefill": ("model",), "decode": ("model",)}
_READ |= dict.fromkeys(("values", "critics", "reference"), ("model", "rows", "zero_stage"))
_RUNNERS_UP = 5
# The longest phase first, because a candidate that is too slow or too large is left after it.
_ORDER = ("actor", "critics", "decode", "values", "reference", "prefill")


@dataclass(frozen=True)
class Result:
    """A candidate, of which all phases were compiled and fit."""

    candidate: Candidate
    changes: dict[str, Any]
    phases: dict[str, PhasePlan]

    def __str__(self) -> str:
        seconds, peak = self.seconds, self.peak_bytes / 2**30
        return f"{self.candidate}: {seconds:.4g} s per step, peak {peak:.3g} GiB per chip"

    @property
    def seconds(self) -> float:
        """Estimated, per step."""
        return sum(phase.seconds for phase in self.phases.values())

    @property
    def peak_bytes(self) -> float:
        """Of the largest phase, per device."""
        return max(phase.peak_bytes for phase in self.phases.values())


class Compiled:
    """The phases that were compiled: a file of JSON lines that grows."""

    def __init__(self, file: Path) -> None:
        self._file, self._plans = file, {}
        text = file.read_text() if file.exists() else ""
        complete, _, cut_off = text.rpartition("\n")
        if cut_off:  # the search was killed while it wrote a line
            file.write_text(complete + "\n")
        for record in map(json.loads, complete.splitlines()):
            self._plans[record["key"]] = record

    def get(self, key: str) -> PhasePlan | str | None:
        """The plan of a phase, the reason why it does not compile, or None if it was not tried."""
        record = self._plans.get(key)
        if record is None:
            return None
        return record["error"] if "error" in record else PhasePlan(**record["plan"])

    def put(self, key: str, plan: PhasePlan | str) -> None:
        """Adds a line."""
        found = {"error": plan} if isinstance(plan, str) else {"plan": asdict(plan)}
        self._plans[key] = {"key": key, **found}
        with self._file.open("a") as file:
            file.write(json.dumps(self._plans[key]) + "\n")


def key_of(phase: str, candidate: Candidate, setting: Setting) -> str:
    """What the program of a phase depends on: settings, slice, and versions of the compiler."""
    read = _READ.get(phase, ("model", "rows", "zero_stage", "remat"))
    chosen = ",".join(f"{name}={getattr(candidate, name)}" for name in read)
    plain = Candidate(1, 1, 3, "full").applied(setting.config, setting.devices)
    digest = hashlib.sha256(repr(plain).encode()).hexdigest()[:12]
    return f"{phase} {chosen} {setting.topology} config {digest} {_versions()}"


def _versions() -> str:
    installed = {"jax", "libtpu"} & {distribution.name for distribution in distributions()}
    return " and ".join(f"{package} {version(package)}" for package in sorted(installed))


def search(
    setting: Setting,
    compiled: Compiled,
    compile_phase: Callable[[Candidate, str], PhasePlan],
    *,
    is_over: Callable[[], bool],
    report: Callable[[str], None] = print,
) -> list[Result]:
    """The candidates that fit, shortest step first; empty if none fits.

    `compile_phase(candidate, phase)` plans one phase. When `is_over()`, nothing more is compiled.
    """
    possible, refused = candidates(setting)
    report(f"{len(possible)} candidates; {len(refused)} were left out by formula")
    least = {candidate: sum(phases.values()) for candidate, phases in possible.items()}
    ratios: dict[int, float] = {}  # of the compiler's seconds to the formula's, by `model`
    results, best = [], math.inf

    def expected(candidate: Candidate) -> float:  # 0 for the first one with this `model`
        return least[candidate] * ratios.get(candidate.model, 0.0)

    while least:
        candidate = min(least, key=lambda candidate: (expected(candidate), least[candidate]))
        if min(least.values()) >= best:
            report(f"no other candidate is below {best:.4g} s by the formula")
            break
        del least[candidate]
        plans = _compile(candidate, setting, compiled, compile_phase, best, is_over, report)
        formula = sum(possible[candidate][phase] for phase in plans)
        ratio = sum(plan.seconds for plan in plans.values()) / formula if plans else 1.0
        ratios.setdefault(candidate.model, ratio)
        if set(plans) == set(setting.phases):
            results.append(Result(candidate, candidate.changes(setting.devices), plans))
            best = min(best, results[-1].seconds)
            report(str(results[-1]))
    if is_over():
        report("the time is over; the same command continues")
    return sorted(results, key=lambda result: result.seconds)


def _compile(
    candidate: Candidate,
    setting: Setting,
    compiled: Compiled,
    compile_phase: Callable[[Candidate, str], PhasePlan],
    best: float,
    is_over: Callable[[], bool],
    report: Callable[[str], None],
) -> dict[str, PhasePlan]:
    """The candidate's phases, up to one that does not fit or makes it slower than `best`."""
    plans: dict[str, PhasePlan] = {}
    for phase in [phase for phase in _ORDER if phase in setting.phases]:
        key = key_of(phase, candidate, setting)
        plan = compiled.get(key)
        if plan is None:
            if is_over():
                break
            report(f"{candidate}: compiling {phase}")
            try:
                plan = compile_phase(candidate, phase)
            except PlanError as error:
                plan = str(error)
            compiled.put(key, plan)
        if isinstance(plan, str) or not plan.fits:
            reason = plan if isinstance(plan, str) else f"{phase} does not fit"
            report(f"{candidate}: {reason}")
            break
        plans[phase] = plan
        if sum(p.seconds for p in plans.values()) >= best:
            report(f"{candidate}: {phase} makes it longer than the best")
            break
    return plans


def config_text(
    results: list[Result], setting: Setting, base: str, command: str, changes: Mapping[str, Any]
) -> str:
    """A config file: the config file `base` with `changes` and the best result's settings.

    `base` is relative to the new file, and `command` is the one that made it.
    """
    best, *others = results
    lines = [f"    {result}" for result in (best, *others[:_RUNNERS_UP])]
    settings = "\n".join(
        f"    config.{name} = {value!r}" for name, value in {**changes, **best.changes}.items()
    )
    return f'''"""{Path(base).stem} on {setting.topology}, as tuned by the planner; not run yet.

    {command}

The best, and those compiled before it that fit, with {_versions()}.
Estimated seconds are of {", ".join(setting.phases)}.

{chr(10).join(lines)}
"""

import runpy
from pathlib import Path

from asyppo_jax.config import Settings


def get_config() -> Settings:
    config = runpy.run_path(str(Path(__file__).parent / {base!r}))["get_config"]()
{settings}
    return config
'''


def as_json(results: list[Result]) -> list[dict[str, Any]]:
    """The results as dicts, for JSON."""
    return [
        {"settings": result.changes, "seconds": result.seconds, "peak_bytes": result.peak_bytes}
        | {"phases": {name: asdict(phase) for name, phase in result.phases.items()}}
        for result in results
    ]
