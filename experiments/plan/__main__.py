"""Plans a run for a TPU slice that need not be there.

    python -m experiments.plan --config=configs/X.py --topology=v5p:4x4x2
        [--compare=configs/Y.py,configs/Z.py] [--search=v5p:2x2x4,v5p:4x4x4]
        [--phases=critics,actor] [--json]

Compiles every phase with the real TPU compiler (`pip install 'jax[tpu]'`) and prints what each
needs of a chip's memory, its arithmetic, its traffic and an estimated time. `--search` takes
slices, small to large, and names the first that holds the config. Settings are flags, as in
training: `--config.mesh.model=8`; they hold for the compared configs too, so that policies stay
equal.
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
_SEARCH = flags.DEFINE_list("search", [], "Slices, small to large: name the first that holds it.")
_PHASES = flags.DEFINE_list("phases", [], f"Only some of {', '.join(PHASES)}; step is train_step.")
_JSON = flags.DEFINE_bool("json", False, "End with one line of JSON.")


def main(argv: list[str]) -> None:
    del argv
    try:
        config = read_config(_CONFIG.value)
        name = config_flags.get_config_filename(flags.FLAGS["config"])
        # Before the first compilation, which takes minutes.
        changes = config_flags.get_override_values(flags.FLAGS["config"])
        compared = {file: read_config_file(file, changes) for file in _COMPARE.value}
        if _SEARCH.value:
            found = search(config, name, _SEARCH.value, _PHASES.value)
        else:
            if _TOPOLOGY.value is None:
                raise ConfigError("--topology is missing; name a slice, such as v5p:4x4x2")
            found = plan(config, _TOPOLOGY.value, name=name, phases=_PHASES.value, report=_tell)
            print(table(found))
        others = []
        for file, other in compared.items():
            other = plan(other, found.topology, name=file, phases=_PHASES.value, report=_tell)
            others.append(other)
            print(table(other))
            print(ratios(found, other))
    except UserError as error:
        sys.exit(f"error: {error}")
    if _JSON.value:
        print(json.dumps(found.as_dict() | {"compare": [other.as_dict() for other in others]}))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def search(config: Config, name: str, topologies: list[str], phases: list[str]) -> Plan:
    """The plan for the first slice that holds the config; if none does, for the last.

    A slice that the config's mesh does not divide is passed over.
    """
    found, reasons = None, []
    for topology in topologies:
        try:
            found = plan(config, topology, name=name, phases=phases, report=_tell)
        except ConfigError as error:
            reasons.append(f"{topology}: {error}")
            continue
        print(table(found))
        if found.fits:
            print(f"the smallest of these slices that holds {name} is {topology}")
            return found
    if found is None:
        raise ConfigError(f"no slice of --search suits the mesh ({'; '.join(reasons)})")
    print(f"none of these slices holds {name}")
    return found


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
