"""What the tuning found: the learning rates of each method, the spread over seeds, and the power.

    python -m experiments.asyppo_study --study=DIR

DIR is the --workdir of the study `asyppo_tuning`.
"""

import argparse
import sys
from pathlib import Path

from asyppo_jax.config import UserError
from experiments.asyppo_study.tuning import tuning_report
from experiments.report.curves import load


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints what the tuning found.")
    parser.add_argument("--study", type=Path, required=True, help="the workdir of asyppo_tuning")
    try:
        print(tuning_report(load(parser.parse_args().study)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
