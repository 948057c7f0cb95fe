"""Times a phase of a training step, optionally next to another library with the same weights.

    python -m experiments.benchmark sample|update|step --model=DIR [--critic=DIR --num_critics=2]
        [--sequences=128 --group=8 --prompt=64 --completion=192] [--ragged=SEED | --lengths=FILE]
        [--microbatch=16] [--packing] [--rows_per_prompt=1] [--slots=0] [--cores=1] [--repeats=3]
        [--beside=transformers|tunix|torch|torch_compile --peer_python=PYTHON]
        [--peer_microbatch=4] [--devices=1] [--dtype=float32] [--remat=none] [--unroll=1]
        [--profile=DIR] [--json]

The method, the environments of the other libraries (peers) and results are in
experiments/benchmark/README.md.
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
from experiments.command_line import parse_flags

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "The actor: a Hugging Face directory (without tokenizer), or a config.json for random weights.",
)
_CRITIC = flags.DEFINE_string("critic", "", "The critics, like --model; empty: the actor's.")
_NUM_CRITICS = flags.DEFINE_integer("num_critics", 1, "1: PPO; 2 or more: AsyPPO.", lower_bound=1)
_SEQUENCES = flags.DEFINE_integer("sequences", 128, "Sequences per rollout.", lower_bound=1)
_GROUP = flags.DEFINE_integer("group", 8, "Responses per prompt.", lower_bound=1)
_PROMPT = flags.DEFINE_integer("prompt", 64, "Tokens per prompt.", lower_bound=1)
_COMPLETION = flags.DEFINE_integer(
    "completion", 192, "Maximum tokens per completion.", lower_bound=2
)
_RAGGED = flags.DEFINE_integer(
    "ragged", None, "Random completion lengths (lognormal, median 40) from this seed."
)
_LENGTHS = flags.DEFINE_string(
    "lengths", None, "A JSON file with a list of the completion lengths."
)
_MICROBATCH = flags.DEFINE_integer("microbatch", 16, "Sequences per forward pass.", lower_bound=1)
_PACKING = flags.DEFINE_bool("packing", False, "Pack several sequences into a row in the updates.")
_ROWS_PER_PROMPT = flags.DEFINE_integer(
    "rows_per_prompt",
    1,
    "Rows of the updates that share one forward pass over their prompt.",
    lower_bound=1,
)
_SLOTS = flags.DEFINE_integer(
    "slots", 0, "Sequences decoded at the same time; 0: all.", lower_bound=0
)
_CORES = flags.DEFINE_integer("cores", None, "CPU cores to use; default: all available.")
_DEVICES = flags.DEFINE_integer(
    "devices",
    1,
    "For `sample` and `update`: number of CPU devices to shard the rows over.",
    lower_bound=1,
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of timed runs.", lower_bound=1)
_BESIDE = flags.DEFINE_enum(
    "beside",
    None,
    ["transformers", "tunix", "torch", "torch_compile"],
    "The peer to time, alternating with our runs.",
)
_PEER_PYTHON = flags.DEFINE_string(
    "peer_python", None, "The Python interpreter of the peer's environment."
)
_PEER_MICROBATCH = flags.DEFINE_integer(
    "peer_microbatch", None, "The peer's sequences per forward pass; default: --microbatch."
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Compute dtype of both networks."
)
_REMAT = flags.DEFINE_enum(
    "remat",
    "none",
    ["none", "dots", "attention_gate", "attention", "full"],
    "What the backward pass recomputes.",
)
_UNROLL = flags.DEFINE_integer(
    "unroll", 1, "Layers unrolled per scan iteration; 0: all.", lower_bound=0
)
_PROFILE = flags.DEFINE_string(
    "profile", "", "Trace one more run into this directory and list its operations by time."
)
_JSON = flags.DEFINE_bool("json", False, "Print the result as one line of JSON at the end.")


def main(argv: list[str]) -> None:
    try:
        phase, setting = _read_phase(argv[1:]), _read_setting()
        cores = restrict_cores(_CORES.value)
        spread_over(_DEVICES.value, phase, setting)
        # Imported late, because XLA creates one thread per available core when jax is imported.
        from experiments.benchmark.measure import describe, measure

        peer, python = _BESIDE.value, _PEER_PYTHON.value
        if (peer is None) != (python is None):
            raise ConfigError("--beside and --peer_python must be given together")
        for name, path in (("model", setting.model), ("critic", setting.critic)):
            if peer is not None and is_shape_alone(path):
                raise ConfigError(
                    f"--beside={peer} needs weights, but --{name}={path} has none; "
                    "make a model with experiments.benchmark.make_model"
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
            "--model=DIR is missing; make one: `python -m experiments.benchmark.make_model DIR`"
        )
    count, cap = _SEQUENCES.value, _COMPLETION.value
    if _RAGGED.value is not None and _LENGTHS.value is not None:
        raise ConfigError("--ragged and --lengths both set the completion lengths; give only one")
    lengths = (cap,) * count
    if _RAGGED.value is not None:
        lengths = ragged_lengths(_RAGGED.value, count, cap)
    if _LENGTHS.value is not None:
        lengths = read_lengths(_LENGTHS.value, count, cap)
    if count % _GROUP.value:
        raise ConfigError(
            f"--group={_GROUP.value} does not divide --sequences={count}; change one of them"
        )
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
    """Sets the number of CPU devices of this process (not of its peer); call before importing jax.

    Raises:
        ConfigError: the phase is `step`, or the rows cannot be divided evenly over the devices.
    """
    if devices == 1:
        return
    if phase == "step":
        raise ConfigError(
            f"--devices={devices} works for `sample` and `update` only; step runs on one device"
        )
    sharded_rows = {
        "sample": ("--sequences / --group", setting.sequences // setting.group_size),
        "update": ("--microbatch / --rows_per_prompt", rows_at_once(setting)),
    }
    name, count = sharded_rows[phase]
    if count % devices:
        raise ConfigError(
            f"--devices={devices} does not divide {name}, which is {count}; make it a multiple"
        )
    os.environ["JAX_NUM_CPU_DEVICES"] = str(devices)


def restrict_cores(count: int | None) -> int:
    """Restricts this process and its peer to `count` cores (None: all); returns the number.

    Raises:
        ConfigError: fewer cores are available.
    """
    available = sorted(os.sched_getaffinity(0))
    if count is None:
        return len(available)
    if not 1 <= count <= len(available):
        raise ConfigError(f"--cores is {count}; choose a number from 1 to {len(available)}")
    os.sched_setaffinity(0, available[:count])
    return count


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
