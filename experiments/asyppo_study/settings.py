"""The study's tasks, actors and methods, as settings over the base config configs/asyppo_study.py.

Each is {"section.field": value}. A run's settings are those of a task, an actor, a method and a
seed, in this order.
"""

from typing import Any

Settings = dict[str, Any]

BASE_CONFIG = "configs/asyppo_study.py"
_MODELS = "experiments/asyppo_study/models"

TASKS: dict[str, Settings] = {
    name: {
        "train_data.path": f"experiments.asyppo_study.tasks:{name}",
        "eval_data.path": f"experiments.asyppo_study.tasks:{name}",
    }
    for name in ("sums", "chains")
}
ACTORS: dict[str, Settings] = {
    name: {"actor.path": f"{_MODELS}/{name}"} for name in ("qwen3", "llama")
}
_WITHOUT_CRITICS: Settings = {
    "algorithm.num_critics": 0,
    "algorithm.advantage_whitening": "none",
}
_GRPO: Settings = {**_WITHOUT_CRITICS, "algorithm.advantages": "grpo"}
_SYMMETRIC: Settings = {"algorithm.num_critics": 1, "critic.num_layers": None}
_NO_ADVANTAGE_MASK: Settings = {"algorithm.advantage_mask_fraction": 0.0}
_NO_ENTROPY_MASK: Settings = {"algorithm.entropy_mask_fraction": 0.0}

# In the order of PREREGISTRATION.md, which also has methods that the library does not have yet.
METHODS: dict[str, Settings] = {
    "asyppo": {},
    "symmetric_ppo": _SYMMETRIC,
    "grpo": _GRPO,
    "no_masks": {**_NO_ADVANTAGE_MASK, **_NO_ENTROPY_MASK},
    "asyppo_anchored": {
        "value.anchor": "shrunken_group",
        "value.head": "sigmoid",
        "value.loss": "bce",
    },
    "one_mini_critic": {"algorithm.num_critics": 1},
    "no_advantage_mask": _NO_ADVANTAGE_MASK,
    "no_entropy_mask": _NO_ENTROPY_MASK,
    "rloo": {**_WITHOUT_CRITICS, "algorithm.advantages": "rloo"},
    "dr_grpo": {
        **_GRPO,
        "algorithm.group_scale": "none",
        "algorithm.loss_aggregation": "constant",
    },
    "reinforce_plus_plus": {
        **_WITHOUT_CRITICS,
        "algorithm.advantages": "reinforce_plus_plus",
        "algorithm.advantage_whitening": "before_mask",
    },
    # Without the overlong punishment: all answers of a task are equally long. "drop" in place of
    # "resample": all methods have the same number of rollouts.
    "dapo": {
        **_GRPO,
        "algorithm.clip_eps_high": 0.28,
        "algorithm.zero_spread_groups": "drop",
        "algorithm.loss_aggregation": "token",
    },
    "critics_4": {"algorithm.num_critics": 4},
    "critics_8": {"algorithm.num_critics": 8},
    "after_update": {"algorithm.value_timing": "after_update"},
    "reuse_1": {"algorithm.actor_epochs": 1},
    "reuse_4": {"algorithm.actor_epochs": 4},
    "masks_5": {
        "algorithm.advantage_mask_fraction": 0.05,
        "algorithm.entropy_mask_fraction": 0.05,
    },
    "masks_40": {
        "algorithm.advantage_mask_fraction": 0.4,
        "algorithm.entropy_mask_fraction": 0.4,
    },
}
ACTOR_RATE, CRITIC_RATE = "actor_optimizer.learning_rate", "critic_optimizer.learning_rate"
# (actor's, critics'): the base config's, and one rate changed at a time.
RATES = ((1e-4, 1e-3), (3e-5, 1e-3), (3e-4, 1e-3), (1e-3, 1e-3), (1e-4, 3e-4), (1e-4, 3e-3))
TUNED_METHODS = ("asyppo", "symmetric_ppo", "grpo")
FINAL_EVALUATIONS = 5  # the final accuracy is the mean of so many last evaluations
# Whether accuracy still rises after step 100.
LONG_RUN: dict[str, Settings] = {"grpo, 300 steps": {**METHODS["grpo"], "num_steps": 300}}


def tuned_name(method: str, rates: tuple[float, float]) -> str:
    """The name of a method at (actor's, critics') learning rates; without critics: the first."""
    shown = rates if METHODS[method].get("algorithm.num_critics") != 0 else rates[:1]
    return ", ".join([method, *(f"{rate:g}" for rate in shown)])


def tuning_methods() -> dict[str, Settings]:
    """Every tuned method at each pair of rates, without critics at each rate of the actor."""
    methods: dict[str, Settings] = {}
    for method in TUNED_METHODS:
        for rates in RATES:
            settings = {ACTOR_RATE: rates[0], CRITIC_RATE: rates[1]}
            methods.setdefault(tuned_name(method, rates), {**METHODS[method], **settings})
    return methods


# What the tuning chose where it is not the base config's; PREREGISTRATION.md has the table.
TUNED: dict[str, Settings] = {"symmetric_ppo": {ACTOR_RATE: 3e-4}, "grpo": {ACTOR_RATE: 3e-4}}
