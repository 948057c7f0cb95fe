"""Plans a run for a TPU slice, without access to the slice.

    python -m experiments.plan --config=configs/X.py --topology=v5p:4x4x2
        [--compare=configs/Y.py,configs/Z.py] [--search=v5p:2x2x4,v5p:4x4x4]
        [--phases=critics,actor] [--json]
    python -m experiments.plan --tune --config=configs/X.py --topology=v5p:4x4x2 [--hours=1]
        [--out=X_tuned.py] [--phases=critics,actor] [--json]

Compiles every phase with the real TPU compiler (`pip install -e '.[tpu]'`) and prints each phase's
memory per chip, FLOPs, memory and network traffic, and estimated time. `--search` takes slices from
small to large and reports the first with enough memory for the config. With `--phases` only these
are compiled, and the verdict is about them alone. Settings are flags, as in training:
`--config.mesh.model=8`. They also apply to the compared configs.

`--tune` searches a mesh per phase, microbatch, ZeRO stage and remat for the shortest step that
fits, and writes a config file. The file FILE.jsonl next to it has what was compiled: the same
command continues.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from asyppo_jax.config import Config, ConfigError, UserError
from asyppo_jax.planning.candidates import Candidate, Setting, setting_of
from asyppo_jax.planning.early_checks import StateTooLarge
from asyppo_jax.planning.phases import PHASES
from asyppo_jax.planning.plan import (
    PhasePlan,
    Plan,
    Preparation,
    compile_plan,
    plan_of,
    prepare,
)
from asyppo_jax.planning.report import ratios, search_verdict, table
from asyppo_jax.planning.topology import PlanError
from asyppo_jax.planning.tune import Compiled, as_json, config_text, search
from experiments.command_line import (
    parse_flags,
    read_config,
    read_config_file,
    refuse_words,
    stop,
)

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's file in configs/.")
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "A slice, such as v5p:2x2x4, or its type, v5p-32."
)
_COMPARE = flags.DEFINE_list("compare", [], "Other config files, planned for the same slice.")
_SEARCH = flags.DEFINE_list(
    "search", [], "Slices from small to large: find the first with enough memory."
)
_PHASES = flags.DEFINE_list(
    "phases", [], f"Plan only some of {', '.join(PHASES)}; step is the full train_step."
)
_TUNE = flags.DEFINE_bool("tune", False, "Search settings for --topology; write a config file.")
_HOURS = flags.DEFINE_float("hours", 1.0, "With --tune: no compilation starts after so many hours.")
_OUT = flags.DEFINE_string("out", "", "With --tune: the file to write; default CONFIG_SLICE.py.")
_JSON = flags.DEFINE_bool("json", False, "Print the plan as one line of JSON at the end.")

_STOPPED = "\nstopped; tables have the phases that were compiled until now, if there are any"
Named = tuple[str, Config]  # a config file's name, and its config


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # at INFO, JAX logs that it finds no TPU
    try:
        refuse_words(argv)
        config = read_config(_CONFIG.value)
        name = config_flags.get_config_filename(flags.FLAGS["config"])
        changes = config_flags.get_override_values(flags.FLAGS["config"])
        if _TUNE.value:
            return tune(name, config, changes)
        compared = [(file, read_config_file(file, changes)) for file in _COMPARE.value]
        # Checked before the first compilation, which takes minutes, so that errors come early.
        prepared = prepare_all([(name, config), *compared], _slices(), _PHASES.value)
        main_plan, *others = compile_all(prepared)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        stop(_STOPPED)
    if _JSON.value:
        print(json.dumps(main_plan.as_dict() | {"compare": [other.as_dict() for other in others]}))


def _slices() -> list[str]:
    slices = [*_SEARCH.value, *([_TOPOLOGY.value] if _TOPOLOGY.value else [])]
    if not slices or (_SEARCH.value and _TOPOLOGY.value):
        raise ConfigError(
            "give either --topology=SLICE, such as v5p:4x4x2, or --search=SLICE,SLICE"
        )
    return slices


def prepare_all(
    configs: list[Named], topologies: list[str], phases: list[str]
) -> list[list[Preparation]]:
    """For each slice the prepared configs, without slices that do not suit the first config's mesh.

    Raises:
        ConfigError: no slice suits the first config, or one that does suits no other config. A
            config whose state is too large is only left out of the comparison.
        PlanError: see `prepare`.
    """
    (name, config), *compared = configs
    prepared, reasons = [], []
    for topology in topologies:
        try:
            first = prepare(config, topology, name=name, phases=phases)
        except ConfigError as error:
            reasons.append(str(error))
            continue
        others = []
        for file, other in compared:
            try:
                others.append(prepare(other, topology, name=file, phases=phases))
            except StateTooLarge as error:
                _log(f"not compared: {error}")
        prepared.append([first, *others])
    if not prepared:
        raise ConfigError("; ".join(reasons))
    for reason in reasons:
        _log(f"skipped: {reason}")
    if sum(len(preparation.phases) for preparation in prepared[0]) > 1:
        _log("the phases of a 14B config take about ten minutes to compile on two cores")
    return prepared


def compile_all(prepared: list[list[Preparation]]) -> list[Plan]:
    """The plans of all configs for the first slice in which the first config fits; prints them."""
    main_plan, compared = _first_that_fits(prepared)
    if _SEARCH.value:
        print(search_verdict(main_plan))
    others = []
    for preparation in compared:
        others.append(_compile(preparation))
        print(ratios(main_plan, others[-1]))
    return [main_plan, *others]


def _first_that_fits(prepared: list[list[Preparation]]) -> tuple[Plan, list[Preparation]]:
    """The first plan that fits, or the last one, and what is prepared to be compared with it."""
    *smaller, largest = prepared
    for first, *compared in smaller:
        planned = _compile(first)
        if planned.fits is not False:
            return planned, compared
    return _compile(largest[0]), largest[1:]


def _compile(preparation: Preparation) -> Plan:
    """Compiles and prints a plan; after Ctrl-C prints what is finished."""
    for warning in preparation.warnings:
        _log(f"{preparation.name}: {warning}")
    finished: dict[str, PhasePlan] = {}
    # In a thread, because the compiler does not return to Python for Ctrl-C.
    pool = ThreadPoolExecutor(1)
    try:
        planned = pool.submit(compile_plan, preparation, _log, finished).result()
    except KeyboardInterrupt:
        if finished:
            print(table(plan_of(preparation, finished)))
        stop(_STOPPED)
    print(table(planned))
    return planned


def tune(name: str, config: Config, changes: dict[str, Any]) -> None:
    """Searches settings for the slice, prints the results and writes the config file.

    Raises:
        ConfigError: no slice is named, a flag does not suit --tune, or nothing fits.
        PlanError, AcceleratorError: see `setting_of`.
    """
    if not _TOPOLOGY.value or _SEARCH.value or _COMPARE.value:
        raise ConfigError("--tune needs one --topology=SLICE, without --search and --compare")
    setting = setting_of(config, _TOPOLOGY.value, name=name, phases=_PHASES.value)
    default = f"{Path(name).stem}_{setting.topology.replace(':', '_')}.py"
    out = Path(_OUT.value or default)
    compiled_file = out.with_suffix(".jsonl")
    end = time.monotonic() + 3600 * _HOURS.value

    def compile_phase(candidate: Candidate, phase: str) -> PhasePlan:
        return _in_process(name, phase, setting, changes | candidate.changes(setting.devices))

    def is_over() -> bool:
        return time.monotonic() > end

    try:
        compiled = Compiled(compiled_file)
        results = search(setting, compiled, compile_phase, is_over=is_over, report=_log)
    except KeyboardInterrupt:
        stop(f"\nstopped; what was compiled is in {compiled_file}; the same command continues")
    if not results:
        raise ConfigError(
            f"nothing that was compiled for {name} fits {setting.topology}; use a larger slice, "
            "fewer config.sampling.slots, config.mesh.offload, or more --hours"
        )
    base = os.path.relpath(name, out.parent)
    command = shlex.join(["python", "-m", "experiments.plan", *sys.argv[1:]])
    out.write_text(config_text(results, setting, base, command, changes))
    for result in results:
        print(result)
    print(f"{out} has the settings of the best: {results[0].seconds:.4g} s per step, estimated")
    if _JSON.value:
        print(json.dumps(as_json(results)))


def _in_process(name: str, phase: str, setting: Setting, changes: dict[str, Any]) -> PhasePlan:
    """One phase, planned by a process of its own, because a fault of the compiler ends its process.

    Raises:
        PlanError: the process failed; the message is its last line.
    """
    flags_of_config = [f"--config.{field}={value}" for field, value in changes.items()]
    command = [sys.executable, "-m", "experiments.plan", f"--config={name}", "--json"]
    command += [f"--topology={setting.topology}", f"--phases={phase}", *flags_of_config]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode > 0:
        raise PlanError(done.stderr.strip().splitlines()[-1])
    if done.returncode < 0:
        raise PlanError(f"the compiler failed on {phase} (signal {-done.returncode})")
    return PhasePlan(**json.loads(done.stdout.splitlines()[-1])["phases"][phase])


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
