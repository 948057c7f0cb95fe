"""What a study of this folder found.

    python -m experiments.asyppo_study --study=DIR [--collect]

DIR is the --workdir of the study `asyppo_tuning` (its learning rates, the spread over seeds, the
power) or `asyppo` (the paper's claims with verdicts, and what the critics know). `--collect` first
writes DIR/truth.csv from the files that `experiments.value_truth` wrote in DIR/runs.
"""

import argparse
import sys
from pathlib import Path

from asyppo_jax.config import UserError
from experiments.asyppo_study.claims import claims_report
from experiments.asyppo_study.truth import FILE, collect, truth_report
from experiments.asyppo_study.tuning import tuning_report
from experiments.report.curves import load


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints what a study found.")
    parser.add_argument("--study", type=Path, required=True, help="the workdir of a study")
    parser.add_argument("--collect", action="store_true", help=f"write {FILE} first")
    arguments = parser.parse_args()
    study: Path = arguments.study
    try:
        results = load(study)
        if results.study == "asyppo_tuning":
            print(tuning_report(results))
            return
        print(claims_report(results))
        if arguments.collect:
            print(f"\n{study / FILE} has the values of {collect(study)} runs")
        if arguments.collect or (study / FILE).is_file():
            print(f"\n{truth_report(study)}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
