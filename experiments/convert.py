"""Converts a GGUF file to a Hugging Face directory, which all other commands can load.

python -m experiments.convert --gguf=FILE --output=DIR [--dtype=bfloat16]
"""

import os
import sys
from pathlib import Path

from absl import app, flags

from asyppo_jax.config import UserError
from experiments.command_line import parse_flags, refuse_words

_GGUF = flags.DEFINE_string("gguf", None, "The file to read.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Dtype of the written weights; float32 keeps the file's values exactly.",
)


def main(argv: list[str]) -> None:
    # Without this, transformers prints advice to install PyTorch, which is not needed.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        refuse_words(argv)
        # Imported late, because it needs the package gguf, an extra.
        from asyppo_jax.models.formats.gguf import convert_gguf

        convert_gguf(Path(_GGUF.value), Path(_OUTPUT.value), dtype=_DTYPE.value)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
