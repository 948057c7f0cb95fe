"""Times a phase, beside a peer on the same weights where asked for.

    python -m experiments.benchmark sample|update|step --model=DIR [--critic=DIR --num_critics=2]
        [--sequences=128 --group=8 --prompt=64 --completion=192] [--ragged=SEED | --lengths=FILE]
        [--microbatch=16] [--packing] [--rows_per_prompt=1] [--slots=0] [--cores=1] [--repeats=3]
        [--beside=transformers|tunix|torch|torch_compile --peer_python=PYTHON]
        [--peer_microbatch=4] [--devices=1] [--dtype=float32] [--remat=none] [--unroll=1]
        [--profile=DIR] [--json]

How the figures are made, the peers' environments, and a table: experiments/benchmark/README.md.
"""

import json
import os
import sys

from absl import app, flags

from asyppo_jax.config import ConfigError, UserError
from experiments.benchmark.setting import (
    Setting,
    is_shape_alone,
    ragged_lengths,
    read_lengths,
    rows_at_once,
)

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "The actor's Hugging Face directory (no tokenizer), or a config.json whose weights are drawn.",
)
_CRITIC = flags.DEFINE_string("critic", "", "The critics', likewise; empty: the actor's.")
_NUM_CRITICS = flags.DEFINE_integer("num_critics", 1, "1 is PPO, 2 or more AsyPPO.", lower_bound=1)
_SEQUENCES = flags.DEFINE_integer("sequences", 128, "Rows of the rollout.", lower_bound=1)
_GROUP = flags.DEFINE_integer("group", 8, "Responses of a prompt.", lower_bound=1)
_PROMPT = flags.DEFINE_integer("prompt", 64, "Tokens of every prompt.", lower_bound=1)
_COMPLETION = flags.DEFINE_integer("completion", 192, "The longest completion.", lower_bound=2)
_RAGGED = flags.DEFINE_integer("ragged", None, "Seed of lognormal lengths (median 40).")
_LENGTHS = flags.DEFINE_string("lengths", None, "A JSON list: the length of each completion.")
_MICROBATCH = flags.DEFINE_integer("microbatch", 16, "Rows of one forward pass.", lower_bound=1)
_PACKING = flags.DEFINE_bool("packing", False, "Several sequences in a row of the updates.")
_ROWS_PER_PROMPT = flags.DEFINE_integer(
    "rows_per_prompt",
    1,
    "Rows of the updates that share one pass over their prompt.",
    lower_bound=1,
)
_SLOTS = flags.DEFINE_integer("slots", 0, "Rows decoded at one time; 0: all.", lower_bound=0)
_CORES = flags.DEFINE_integer("cores", None, "Cores of the process; all it may use if not given.")
_DEVICES = flags.DEFINE_integer(
    "devices",
    1,
    "Of `sample` and `update`: CPU devices that their rows are spread over.",
    lower_bound=1,
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs.", lower_bound=1)
_BESIDE = flags.DEFINE_enum(
    "beside", None, ["transformers", "tunix", "torch", "torch_compile"], "The peer to run in turn."
)
_PEER_PYTHON = flags.DEFINE_string(
    "peer_python", None, "The interpreter of the peer's environment."
)
_PEER_MICROBATCH = flags.DEFINE_integer(
    "peer_microbatch", None, "The peer's rows of one forward pass; if not given, --microbatch."
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "What both networks compute in."
)
_REMAT = flags.DEFINE_enum(
    "remat", "none", ["none", "dots", "full"], "What a backward pass computes again."
)
_UNROLL = flags.DEFINE_integer(
    "unroll", 1, "Layers in one turn of the loop over them; 0: all.", lower_bound=0
)
_PROFILE = flags.DEFINE_string(
    "profile", "", "A directory for a trace of one more run, whose operations are listed by time."
)
_JSON = flags.DEFINE_bool("json", False, "End with one line of JSON.")


def main(argv: list[str]) -> None:
    try:
        phase, setting = _read_phase(argv[1:]), _read_setting()
        cores = restrict_cores(_CORES.value)
        spread_over(_DEVICES.value, phase, setting)
        # Late: XLA makes as many threads as the process may use when jax is first imported.
        from experiments.benchmark.measure import describe, measure

        peer, python = _BESIDE.value, _PEER_PYTHON.value
        if (peer is None) != (python is None):
            raise ConfigError("--beside and --peer_python go together")
        for name, path in (("model", setting.model), ("critic", setting.critic)):
            if peer is not None and is_shape_alone(path):
                raise ConfigError(
                    f"--beside={peer} needs weights, and --{name}={path} is a shape alone; "
                    "experiments.benchmark.make_model makes some"
                )
        beside = (peer, python) if peer is not None and python is not None else None
        options = {"cores": cores, "repeats": _REPEATS.value, "profile": _PROFILE.value}
        result = measure(phase, setting, beside=beside, **options)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(describe(result))
    if _JSON.value:
        print(json.dumps(result))


def _read_phase(positional: list[str]) -> str:
    if len(positional) != 1 or positional[0] not in ("sample", "update", "step"):
        raise ConfigError("name one phase to time: sample, update or step")
    return positional[0]


def _read_setting() -> Setting:
    if _MODEL.value is None:
        raise ConfigError(
            "--model=DIR is missing; `python -m experiments.benchmark.make_model DIR` makes one"
        )
    count, cap = _SEQUENCES.value, _COMPLETION.value
    if _RAGGED.value is not None and _LENGTHS.value is not None:
        raise ConfigError("--ragged and --lengths both say how long the answers are; give one")
    lengths = (cap,) * count
    if _RAGGED.value is not None:
        lengths = ragged_lengths(_RAGGED.value, count, cap)
    if _LENGTHS.value is not None:
        lengths = read_lengths(_LENGTHS.value, count, cap)
    if count % _GROUP.value:
        raise ConfigError(f"--group={_GROUP.value} does not divide --sequences={count}")
    return Setting(
        model=_MODEL.value,
        critic=_CRITIC.value,
        num_critics=_NUM_CRITICS.value,
        group_size=_GROUP.value,
        prompt=_PROMPT.value,
        completion=cap,
        lengths=lengths,
        microbatch=_MICROBATCH.value,
        packing=_PACKING.value,
        rows_per_prompt=_ROWS_PER_PROMPT.value,
        peer_microbatch=_PEER_MICROBATCH.value or _MICROBATCH.value,
        slots=_SLOTS.value,
        dtype=_DTYPE.value,
        remat=_REMAT.value,
        unroll=_UNROLL.value,
    )


def spread_over(devices: int, phase: str, setting: Setting) -> None:
    """Gives this process, and not its peer, so many CPU devices; before jax is first imported.

    Raises:
        ConfigError: the phase `step`, or rows that cannot be dealt out evenly.
    """
    if devices == 1:
        return
    if phase == "step":
        raise ConfigError(f"--devices={devices} spreads `sample` and `update`; step runs on one")
    spread = {
        "sample": ("--sequences / --group", setting.sequences // setting.group_size),
        "update": ("--microbatch / --rows_per_prompt", rows_at_once(setting)),
    }
    name, count = spread[phase]
    if count % devices:
        raise ConfigError(
            f"--devices={devices} spreads {name}, which is {count}; make it a multiple of that"
        )
    os.environ["JAX_NUM_CPU_DEVICES"] = str(devices)


def restrict_cores(count: int | None) -> int:
    """Leaves the process, and the peer that it starts, `count` of its cores; how many it has now.

    Raises:
        ConfigError: it has fewer.
    """
    mine = sorted(os.sched_getaffinity(0))
    if count is None:
        return len(mine)
    if not 1 <= count <= len(mine):
        raise ConfigError(f"--cores={count}, but this process may use {len(mine)}")
    os.sched_setaffinity(0, mine[:count])
    return count


if __name__ == "__main__":
    app.run(main)
