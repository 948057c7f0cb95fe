"""The meshes, microbatch, ZeRO stage and remat of the shortest step that fits a slice, by search.

The TPU compiler plans the candidates of `candidates.py`, one phase at a time, until none of the
others can be shorter than the best. A phase that was compiled counts for all candidates that are
alike in what it reads, so the meshes of sampling, critics and actor are searched separately. What
the compiler makes of the first one with a `model`, relative to the formula, says which comes next.
Candidates that need too much memory by such a ratio come last.
What was compiled is kept in a file of JSON lines, so a search that was stopped can go on.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from asyppo_jax.planning.candidates import (
    Candidate,
    Setting,
    candidates,
    least_bytes,
    network_seconds,
)
from asyppo_jax.planning.phases import AFTER_SAMPLING
from asyppo_jax.planning.plan import PhasePlan
from asyppo_jax.planning.topology import PlanError

_RUNNERS_UP = 5
# The longest phase first, because a candidate that is too slow or too large is left after it.
_ORDER = ("actor", "critics", "decode", "values", "reference", "prefill", "reshard")


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
            plan = record["error"] if "error" in record else PhasePlan(**record["plan"])
            self._plans[record["key"]] = plan

    def get(self, key: str) -> PhasePlan | str | None:
        """The plan of a phase, the reason why it does not compile, or None if it was not tried."""
        return self._plans.get(key)

    def put(self, key: str, plan: PhasePlan | str) -> None:
        """Adds a line."""
        self._plans[key] = plan
        found = {"error": plan} if isinstance(plan, str) else {"plan": asdict(plan)}
        with self._file.open("a") as file:
            file.write(json.dumps({"key": key, **found}) + "\n")


def key_of(phase: str, candidate: Candidate, setting: Setting) -> str:
    """What the program of a phase depends on: settings, slice, and versions of the compiler.

    Its plan also counts the state of the other phases, which takes as much memory on every mesh
    that divides it.
    """
    chosen = ",".join(f"{name}={value}" for name, value in _read(phase, candidate).items())
    return f"{phase} {chosen} {setting.topology} config {setting.digest} {_versions()}"


def _read(phase: str, candidate: Candidate) -> dict[str, Any]:
    """The settings of a candidate on which the program of a phase depends."""
    read: dict[str, Any] = {"model": candidate.model_of(phase)}
    if phase == "reshard":
        read["sampling_model"] = candidate.sampling_model
    if phase in AFTER_SAMPLING:
        read |= {"rows": candidate.rows, "zero_stage": candidate.zero_stage}
    if phase == "values":  # computed in the actor's microbatches
        read["actor_model"] = candidate.model
    if phase == "actor":
        read |= {"remat": candidate.remat, "logits_chunk": candidate.logits_chunk}
    return read


def _fits(plan: PhasePlan, usable_bytes: float) -> bool:
    return plan.fits and plan.peak_bytes <= usable_bytes


@cache
def _versions() -> str:
    installed = {"jax", "libtpu"} & {distribution.name for distribution in distributions()}
    return " and ".join(f"{package} {version(package)}" for package in sorted(installed))


class _Estimates:
    """Seconds of candidates: of the phases that this search has planned, and by formula of others.

    What an earlier search compiled does not count before it is this one's turn, so that a search
    that was stopped goes on as if it had not been.
    """

    def __init__(self, setting: Setting, possible: Mapping[Candidate, Mapping[str, float]]) -> None:
        self._formula = possible
        self._network = {candidate: network_seconds(candidate, setting) for candidate in possible}
        self._keys = {
            candidate: {phase: key_of(phase, candidate, setting) for phase in formula}
            for candidate, formula in possible.items()
        }
        self._usable = setting.usable_bytes
        self._least_bytes = {candidate: least_bytes(candidate, setting) for candidate in possible}
        self._peak_ratios: list[float] = []  # of the compiler's peak to the formula's, of actors
        self._seconds: dict[str, float] = {}  # by key; infinite for what does not fit
        # Of the compiler's seconds to the formula's, by phase and its `model`.
        self._ratios: dict[tuple[str, int], float] = {}

    def at_least(self, candidate: Candidate) -> float:
        """A lower bound; infinite if a phase does not fit."""
        keys = self._keys[candidate]
        formula = self._formula[candidate]
        return sum(self._seconds.get(keys[phase], least) for phase, least in formula.items())

    def expected(self, candidate: Candidate) -> float:
        """With the formula corrected; 0 for a phase that is the first one with its `model`."""
        keys, total = self._keys[candidate], 0.0
        for phase in self._formula[candidate]:
            ratio = self._ratios.get((phase, candidate.model_of(phase)), 0.0)
            total += self._seconds.get(keys[phase], self.by_formula(candidate, phase) * ratio)
        return total

    def may_fit(self, candidate: Candidate) -> bool:
        """Whether the actor's update fits if its peak exceeds the formula as little as any has."""
        least = self._least_bytes[candidate] * min(self._peak_ratios, default=1.0)
        return least <= self._usable

    def by_formula(self, candidate: Candidate, phase: str) -> float:
        """Seconds of a phase if no collective of the actor is hidden."""
        least = self._formula[candidate][phase]
        return least + self._network[candidate] if phase == "actor" else least

    def correct(self, candidate: Candidate, compiled: Compiled) -> None:
        """Takes note of the phases of a candidate that were compiled."""
        for phase, key in self._keys[candidate].items():
            plan = compiled.get(key)
            if isinstance(plan, PhasePlan) and phase == "actor":
                self._peak_ratios.append(plan.peak_bytes / self._least_bytes[candidate])
            if isinstance(plan, PhasePlan) and _fits(plan, self._usable):
                ratio = plan.seconds / self.by_formula(candidate, phase)
                self._ratios.setdefault((phase, candidate.model_of(phase)), ratio)
                self._seconds[key] = plan.seconds
            elif plan is not None:
                self._seconds[key] = math.inf


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
    estimates, left = _Estimates(setting, possible), set(possible)
    results, best = [], math.inf

    def order(candidate: Candidate) -> tuple[bool, float, float, Candidate]:
        by_formula = (estimates.by_formula(candidate, phase) for phase in possible[candidate])
        is_large = not estimates.may_fit(candidate)
        return is_large, estimates.expected(candidate), sum(by_formula), candidate

    while left:
        left = {candidate for candidate in left if estimates.at_least(candidate) < best}
        if not left:
            report(f"no other candidate is below {best:.4g} s by the formula")
            break
        candidate = min(left, key=order)
        left.remove(candidate)
        plans = _compile(candidate, setting, compiled, compile_phase, best, is_over, report)
        estimates.correct(candidate, compiled)
        if set(plans) == set(possible[candidate]):
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
    of_candidate = candidate.phases(setting)
    for phase in [phase for phase in _ORDER if phase in of_candidate]:
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
        if isinstance(plan, str) or not _fits(plan, setting.usable_bytes):
            left = 0 if isinstance(plan, str) else 1 - plan.peak_bytes / setting.chip.hbm_bytes
            what = f"leaves {left:.1%} of the memory" if left > 0 else "does not fit"
            reason = plan if isinstance(plan, str) else f"{phase} {what}"
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
