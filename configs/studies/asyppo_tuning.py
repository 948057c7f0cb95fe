"""Learning rates for the study of AsyPPO, on seeds of its own; see PREREGISTRATION.md there.

    python -m experiments.study --study=asyppo_tuning --workdir=runs/asyppo_tuning
    python -m experiments.asyppo_study --study=runs/asyppo_tuning

The second command prints what the first one found. Hardware: two CPU cores, two hours.
"""

from experiments.asyppo_study.settings import (
    BASE_CONFIG,
    FINAL_EVALUATIONS,
    LONG_RUN,
    RATES,
    TASKS,
    TUNED_METHODS,
    tuned_name,
    tuning_methods,
)
from experiments.study.study import Only, Study


def get_study() -> Study:
    methods = tuning_methods() | LONG_RUN
    # The second seed is for the spread alone.
    base = [tuned_name(method, RATES[0]) for method in TUNED_METHODS]
    return Study(
        name="asyppo_tuning",
        base=BASE_CONFIG,
        tasks=TASKS,
        actors={"qwen3": {}},
        methods=methods,
        seeds=(200, 201),
        only={name: Only(seeds=(200,)) for name in methods if name not in base},
        final_evaluations=FINAL_EVALUATIONS,
    )
