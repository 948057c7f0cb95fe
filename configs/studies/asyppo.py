"""Does AsyPPO work? The study of experiments/asyppo_study; PREREGISTRATION.md there has its rules.

    python -m experiments.study --study=asyppo --workdir=runs/asyppo_study
    python -m experiments.report --study=runs/asyppo_study

Hardware: a run takes two minutes of one CPU core. Methods are added in the order of
PREREGISTRATION.md, when those before them have all their seeds.
"""

from experiments.asyppo_study.settings import (
    ACTORS,
    BASE_CONFIG,
    FINAL_EVALUATIONS,
    METHODS,
    TASKS,
    TUNED,
)
from experiments.study.study import Only, Study

_BOTH_ACTORS = ("asyppo", "symmetric_ppo", "grpo", "no_masks", "asyppo_anchored")
_METHODS = (
    *_BOTH_ACTORS,
    *("one_mini_critic", "same_data", "prompt_division"),
    *("no_advantage_mask", "no_entropy_mask", "random_masks", "entropy_masks"),
    *("rloo", "dr_grpo", "reinforce_plus_plus", "dapo"),
)


def get_study() -> Study:
    return Study(
        name="asyppo",
        base=BASE_CONFIG,
        tasks=TASKS,
        actors={"qwen3": {}, "llama": ACTORS["llama"]},
        methods={name: METHODS[name] | TUNED.get(name, {}) for name in _METHODS},
        seeds=tuple(range(8)),
        only={name: Only(actors=("qwen3",)) for name in _METHODS if name not in _BOTH_ACTORS},
        reference="asyppo",
        panels={
            "baselines": ("asyppo", "symmetric_ppo", "grpo"),
            "critics": ("no_masks", "one_mini_critic", "same_data", "prompt_division"),
            "masks": (
                *("asyppo", "no_masks", "no_advantage_mask", "no_entropy_mask"),
                *("random_masks", "entropy_masks"),
            ),
            "better critics": ("asyppo", "asyppo_anchored"),
            "without critics": ("grpo", "rloo", "dr_grpo", "reinforce_plus_plus", "dapo"),
        },
        final_evaluations=FINAL_EVALUATIONS,
        metrics=("evaluate/accuracy", "actor/entropy", "critic/explained_variance"),
    )
