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
# The three that the pilot compares.
PILOT_METHODS = ("grpo", "symmetric_ppo", "asyppo")
