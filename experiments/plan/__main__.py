"""Plans a run for a TPU slice, without access to the slice.

    python -m experiments.plan --config=configs/X.py --topology=v5p:4x4x2
        [--compare=configs/Y.py,configs/Z.py] [--search=v5p:2x2x4,v5p:4x4x4]
        [--phases=critics,actor] [--json]

Compiles every phase with the real TPU compiler (`pip install 'jax[tpu]'`) and prints each phase's
memory per chip, FLOPs, memory and network traffic, and estimated time. `--search` takes slices from
small to large and reports the first with enough memory for the config. Settings are flags, as in
training: `--config.mesh.model=8`. They also apply to the compared configs.
"""

import json
import sys

from absl import app, flags
from ml_collections import config_flags

from asyppo_jax.config import Config, ConfigError, UserError
from asyppo_jax.planning.plan import PHASES, Plan, plan, ratios, table
from experiments.command_line import parse_flags, read_config, read_config_file

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's file in configs/.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "A slice, such as v5p:4x4x2.")
_COMPARE = flags.DEFINE_list("compare", [], "Other config files, planned for the same slice.")
_SEARCH = flags.DEFINE_list(
    "search", [], "Slices from small to large: find the first with enough memory."
)
_PHASES = flags.DEFINE_list(
    "phases", [], f"Plan only some of {', '.join(PHASES)}; step is the full train_step."
)
_JSON = flags.DEFINE_bool("json", False, "Print the plan as one line of JSON at the end.")


def main(argv: list[str]) -> None:
    del argv
    try:
        config = read_config(_CONFIG.value)
        name = config_flags.get_config_filename(flags.FLAGS["config"])
        # Read before the first compilation, which takes minutes, so that errors come early.
        changes = config_flags.get_override_values(flags.FLAGS["config"])
        compared = {file: read_config_file(file, changes) for file in _COMPARE.value}
        if _SEARCH.value:
            main_plan = search(config, name, _SEARCH.value, _PHASES.value)
        else:
            if _TOPOLOGY.value is None:
                raise ConfigError("--topology is missing; name a slice, such as v5p:4x4x2")
            main_plan = plan(config, _TOPOLOGY.value, name=name, phases=_PHASES.value, report=_log)
            print(table(main_plan))
        others = []
        for file, other_config in compared.items():
            topology = main_plan.topology
            other = plan(other_config, topology, name=file, phases=_PHASES.value, report=_log)
            others.append(other)
            print(table(other))
            print(ratios(main_plan, other))
    except UserError as error:
        sys.exit(f"error: {error}")
    if _JSON.value:
        print(json.dumps(main_plan.as_dict() | {"compare": [other.as_dict() for other in others]}))


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def search(config: Config, name: str, topologies: list[str], phases: list[str]) -> Plan:
    """The plan for the first slice that the config fits in; if none, the plan for the last slice.

    A slice whose number of chips does not suit the config's mesh is skipped.
    """
    last, reasons = None, []
    for topology in topologies:
        try:
            last = plan(config, topology, name=name, phases=phases, report=_log)
        except ConfigError as error:
            reasons.append(f"{topology}: {error}")
            continue
        print(table(last))
        if last.fits:
            print(f"{name} fits in {topology}, the smallest of these slices with enough memory")
            return last
    if last is None:
        raise ConfigError(f"no slice of --search suits the mesh ({'; '.join(reasons)})")
    print(f"{name} fits in none of these slices")
    return last


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
