r"""Compares our grader of mathematical answers with those of other projects on the same cases.

    python -m experiments.graders [--cases=FILE.jsonl] [--peers=DIR] [--json]
        [--graders=product,math_verify,verl_prime,lm_eval_minerva]

Without --cases, the cases are those in this directory. A file of cases has one JSON object per
line, in one of two forms:

    {"id": "1", "kind": "lists", "grader": "math", "gold": "1,2", "completion": "\\boxed{2,1}",
     "right": 1}
    {"kind": "lists", "reference": "1,2", "right": ["2,1"], "wrong": ["1", "1,3"]}

With "grader": "minerva_math", "gold" is a JSON list of spellings. --peers is the directory of the
other projects' packages; README.md says how to make it. Each grader runs in a process of its own,
which is killed when a case takes longer than --limit seconds. The table has false negatives / false
positives / invalid verdicts (errors and time limits) by kind, and verdicts per second of processor
time. --json prints all numbers, and the cases on which each grader is wrong, as the last line.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asyppo_jax.config import RewardConfig, UserError
from asyppo_jax.tasks.rewards import RewardPool
from experiments.graders.cases import COMMITTED, Case, read_cases
from experiments.graders.graders import PACKAGES, Grader, missing_packages, title
from experiments.graders.results import Verdicts, count, errors, kinds_of, table


def grade(name: str, directory: str, cases: Sequence[Case], limit: float) -> Verdicts:
    """The verdicts of one grader, in one process at a time."""
    config = RewardConfig(num_workers=1, time_limit=limit)
    with RewardPool(config, Grader(name, directory)) as pool:
        scores = pool.score(
            [""] * len(cases),
            [case.completion for case in cases],
            [json.dumps(case.references) for case in cases],
        )
    seconds = sum(float(details.get("seconds", 0)) for details in scores.details)
    return Verdicts(title(name, directory), scores.rewards >= 0.5, scores.valid, seconds)


def summary(verdicts: Verdicts, cases: Sequence[Case]) -> dict[str, Any]:
    """The numbers of one grader for --json."""
    return {
        "processor_seconds": round(verdicts.seconds, 2),
        "verdicts_per_processor_s": round(verdicts.per_second, 1),
        "total": asdict(count(verdicts, cases)),
        "kinds": {kind: asdict(count(verdicts, cases, kind)) for kind in kinds_of(cases)},
        "errors": [{"id": case.id, "error": error} for case, error in errors(verdicts, cases)],
    }


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.graders", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cases", action="append", type=Path, help="a file; may be repeated")
    parser.add_argument("--graders", default=",".join(PACKAGES), help="names, with commas between")
    parser.add_argument("--peers", default="runs/peers", help="directory of the other packages")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds per case")
    parser.add_argument("--json", action="store_true", help="print all numbers as the last line")
    options = parser.parse_args()
    if options.limit <= 0:
        parser.error("--limit takes seconds, more than 0")
    options.graders = options.graders.split(",")
    for name in options.graders:
        if name not in PACKAGES:
            parser.error(f"there is no grader {name!r}; choose from {', '.join(PACKAGES)}")
    return options


def main() -> None:
    options = _read_options()
    try:
        cases = [case for path in options.cases or COMMITTED for case in read_cases(path)]
        results = []
        for name in options.graders:
            if missing := missing_packages(name, options.peers):
                print(
                    f"{name} is left out, because {options.peers} has no {', '.join(missing)}; "
                    "experiments/graders/README.md shows how to install it",
                    file=sys.stderr,
                )
                continue
            print(f"{name}: {len(cases)} cases", file=sys.stderr, flush=True)
            results.append(grade(name, options.peers, cases, options.limit))
    except (UserError, RuntimeError) as error:  # RuntimeError: a process cannot load its grader
        sys.exit(f"error: {error}")
    if not results:
        sys.exit("error: none of the graders is installed")
    print(table(results, cases))
    if options.json:
        print(json.dumps({result.title: summary(result, cases) for result in results}))


if __name__ == "__main__":
    main()
