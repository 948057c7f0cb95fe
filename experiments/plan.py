"""Plans a run for a TPU slice that need not be there.

    python -m experiments.plan --config=configs/X.py --topology=v5p:4x4x2
        [--compare=configs/Y.py,configs/Z.py] [--search=v5p:2x2x4,v5p:4x4x4] [--json]

Compiles every phase with the real TPU compiler (`pip install 'jax[tpu]'`) and prints what each
needs of a chip's memory, its arithmetic, its traffic and an estimated time. `--search` takes
slices, small to large, and names the first that holds the config. Settings are flags, as in
training: `--config.mesh.model=8`.
"""

import json
import sys

from absl import app, flags
from ml_collections import config_flags

from asyppo_jax.config import Config, ConfigError, from_config_dict
from asyppo_jax.errors import UserError
from asyppo_jax.plan import (
    BANDWIDTH_SHARE,
    FLOPS_SHARE,
    NETWORK_SHARE,
    Plan,
    plan,
)
from experiments.command_line import parse_flags, read_config_file

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run's file in configs/.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "A slice, such as v5p:4x4x2.")
_COMPARE = flags.DEFINE_list("compare", [], "Other config files, planned for the same slice.")
_SEARCH = flags.DEFINE_list("search", [], "Slices, small to large: name the first that holds it.")
_JSON = flags.DEFINE_bool("json", False, "End with one line of JSON.")

GIB = 2**30


def main(argv: list[str]) -> None:
    del argv
    try:
        if _CONFIG.value is None:
            raise ConfigError("--config=configs/NAME.py is missing")
        config, name = (
            from_config_dict(_CONFIG.value),
            config_flags.get_config_filename(flags.FLAGS["config"]),
        )
        if _SEARCH.value:
            found = search(config, name, _SEARCH.value)
        else:
            if _TOPOLOGY.value is None:
                raise ConfigError("--topology is missing; name a slice, such as v5p:4x4x2")
            found = plan(config, _TOPOLOGY.value, name=name, tell=_tell)
            print(table(found))
        others = []
        for file in _COMPARE.value:
            other = plan(read_config_file(file), found.topology, name=file, tell=_tell)
            others.append(other)
            print(table(other))
            print(ratios(found, other))
    except UserError as error:
        sys.exit(f"error: {error}")
    if _JSON.value:
        print(json.dumps(found.as_dict() | {"compare": [other.as_dict() for other in others]}))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def search(config: Config, name: str, topologies: list[str]) -> Plan:
    """The plan for the first slice that holds the config; if none does, for the last.

    A slice that the config's mesh does not divide is passed over.
    """
    found, reasons = None, []
    for topology in topologies:
        try:
            found = plan(config, topology, name=name, tell=_tell)
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


def table(found: Plan) -> str:
    """A line a phase; memory in GiB a chip, FLOPs and traffic of the whole slice in one step."""
    left = (found.hbm_bytes - found.peak_bytes) / GIB
    verdict = f"fits, {left:.1f} GiB to spare" if found.fits else f"does not fit by {-left:.1f} GiB"
    lines = [
        "",
        f"{found.config} on {found.topology} ({found.chips} chips of "
        f"{found.hbm_bytes / GIB:.0f} GiB): {verdict}; "
        f"the state is {found.state_bytes / GIB:.2f} GiB a chip",
        f"{'phase':9}{'peak':>8}{'args':>8}{'temps':>8}{'held':>8}{'PFLOP':>10}{'TB moved':>10}"
        f"{'est. s':>8}{'compile s':>10}  collectives (times, GB sent a chip)",
    ]
    for name, p in found.phases.items():
        sent = ", ".join(
            f"{kind} {t['count']:.0f} x, {t['bytes'] / 1e9:.1f}"
            for kind, t in p.collectives.items()
        )
        lines.append(
            f"{name:9}{p.peak_bytes / GIB:8.2f}{p.argument_bytes / GIB:8.2f}"
            f"{p.temp_bytes / GIB:8.2f}{p.held_bytes / GIB:8.2f}{p.flops / 1e15:10.2f}"
            f"{p.moved_bytes / 1e12:10.2f}{p.seconds:8.1f}{p.compile_seconds:10.0f}  {sent}"
        )
    lines.append(
        "peak, args, temps, held: GiB a chip. est. s: the larger of FLOPs at "
        f"{FLOPS_SHARE:.0%} and bytes at {BANDWIDTH_SHARE:.0%} of the chip's rates, and the "
        f"collectives at {NETWORK_SHARE:.0%}, not overlapped."
    )
    return "\n".join(lines)


def ratios(found: Plan, other: Plan) -> str:
    """The config over the other one, a phase each: below 1 it needs less."""
    lines = [f"\n{found.config} / {other.config}"]
    for name in found.phases.keys() & other.phases.keys():
        a, b = found.phases[name], other.phases[name]
        lines.append(
            f"{name:9} peak {a.peak_bytes / b.peak_bytes:.3f}  FLOPs {a.flops / b.flops:.3f}  "
            f"est. time {a.seconds / b.seconds:.3f}"
        )
    updates = update_peak(found) / update_peak(other)
    lines.append(
        f"{'updates':9} peak {updates:.3f}\n"
        f"{'program':9} peak {found.peak_bytes / other.peak_bytes:.3f}  "
        f"est. time {step_seconds(found) / step_seconds(other):.3f}"
    )
    return "\n".join(lines)


def update_peak(found: Plan) -> float:
    """Of the phases after sampling, bytes a chip."""
    return max(p.peak_bytes for n, p in found.phases.items() if n not in ("prefill", "decode"))


def step_seconds(found: Plan) -> float:
    """Estimated, of one step; decode's program holds the prefill."""
    return sum(p.seconds for name, p in found.phases.items())


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
