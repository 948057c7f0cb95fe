"""Converts a GGUF file to a Hugging Face directory, which all other commands can load.

python -m experiments.convert --gguf=FILE --output=DIR [--dtype=bfloat16]
"""

from pathlib import Path

from absl import app, flags

from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats.gguf import convert_gguf

_GGUF = flags.DEFINE_string("gguf", None, "The file to read.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16"],
    "Dtype of the written weights; float32 keeps the file's values exactly.",
)


def main(_: list[str]) -> None:
    try:
        convert_gguf(Path(_GGUF.value), Path(_OUTPUT.value), dtype=_DTYPE.value)
    except ModelError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
