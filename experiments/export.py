"""Writes a run's actor and critics as Hugging Face directories.

    python -m experiments.export --workdir=RUN --output=DIR [--step=best] [--dtype=bfloat16]

Writes DIR/actor (a causal language model), DIR/critic_0, DIR/critic_1, … (token classifiers whose
only label is the value), each with tokenizer, model card and the run's plot. Scores that
`experiments.evaluate` wrote into the run are added to the card.
"""

import sys
from typing import Any

from absl import app, flags, logging

from asyppo_jax.config import ConfigError, UserError
from experiments.command_line import parse_flags, read_step, refuse_words

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory.")
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.")
_STEP = flags.DEFINE_string(
    "step", "latest", "The run's checkpoint: a step, latest, or best (held-out reward)."
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Dtype of the written weights; float32 keeps the run's values exactly.",
)
_BASE = flags.DEFINE_string(
    "base", None, "The directory of the model that the run started from, if it was moved."
)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # at INFO, Orbax logs what each of its threads does
    try:
        refuse_words(argv)
        for name, value in (("workdir", _WORKDIR.value), ("output", _OUTPUT.value)):
            if not value:
                raise ConfigError(f"--{name}=DIR is missing")
        from asyppo_jax.runs.export import export_run

        step, dtype = read_step(_STEP.value), _DTYPE.value
        options: dict[str, Any] = {"step": step, "dtype": dtype, "base": _BASE.value}
        written = export_run(str(_WORKDIR.value), str(_OUTPUT.value), **options)
    except UserError as error:
        sys.exit(f"error: {error}")
    for directory in written:
        print(f"wrote {directory}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
