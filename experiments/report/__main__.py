"""Writes the tables and figures of a study from its results file alone.

    python -m experiments.report --study=DIR [--output=DIR/report]

DIR is the --workdir of experiments/study: its results.csv has the numbers, and its study.json what
is compared with what. The same files give the same report, byte for byte.
"""

import sys
from pathlib import Path

from absl import app, flags

from asyppo_jax.config import ConfigError, UserError
from experiments.command_line import parse_flags, refuse_words

_STUDY = flags.DEFINE_string("study", None, "The workdir of a study.")
_OUTPUT = flags.DEFINE_string("output", None, "The directory of the report. Default: STUDY/report.")


def main(argv: list[str]) -> None:
    try:
        refuse_words(argv)
        if not _STUDY.value:
            raise ConfigError("--study is missing; give the workdir of a study")
        study = Path(_STUDY.value)
        output = Path(_OUTPUT.value) if _OUTPUT.value else study / "report"
        # Imported late, so that a wrong flag is reported before the slow imports.
        from experiments.report.curves import load
        from experiments.report.figures import draw
        from experiments.report.tables import report

        results = load(study)
        text = report(results)
        output.mkdir(parents=True, exist_ok=True)
        (output / "tables.md").write_text(text)
        files = draw(results, output)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(text)
    print("\n".join(str(file) for file in [output / "tables.md", *files]))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
