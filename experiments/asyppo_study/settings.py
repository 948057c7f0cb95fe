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

_NO_MASKS: Settings = {**_NO_ADVANTAGE_MASK, **_NO_ENTROPY_MASK}
_ONE_MINI_CRITIC: Settings = {"algorithm.num_critics": 1}
# The settings of configs/quickstart_vapo.py, but for its longer warm-up: that of the study is the
# same for all methods with critics.
_VAPO: Settings = {
    "algorithm.gae_lambda": 0.95,
    "algorithm.returns_lambda": 1.0,
    "algorithm.length_adaptive_lambda": 0.4,
    "algorithm.clip_eps_high": 0.28,
    "algorithm.loss_aggregation": "token",
    "algorithm.positive_nll_coef": 0.1,
}
_SP3O: Settings = {"value.positions": (0.3, 0.6, 0.9)}
# Those of configs/quickstart_easy_ppo.py: a rollout, here 64 answers, is four minibatches.
_EASY_PPO: Settings = {
    "algorithm.overlong_filter": True,
    "algorithm.loss_aggregation": "token",
    "value.noise_weights": True,
    "batching.critic_minibatch_size": 16,
    "batching.critic_microbatch_size": 16,
}
_HEAD_INIT: Settings = {"value.head_init": "rollout"}
_BCE: Settings = {"value.head": "sigmoid", "value.loss": "bce"}
_FOUR_EPOCHS: Settings = {"algorithm.critic_epochs": 4}

# In the order of PREREGISTRATION.md.
METHODS: dict[str, Settings] = {
    "asyppo": {},
    "symmetric_ppo": _SYMMETRIC,
    "grpo": _GRPO,
    "no_masks": _NO_MASKS,
    "asyppo_anchored": {**_BCE, "value.anchor": "shrunken_group"},
    "one_mini_critic": _ONE_MINI_CRITIC,
    "same_data": {**_NO_MASKS, "algorithm.critic_data": "all"},
    "prompt_division": {**_NO_MASKS, "algorithm.critic_data": "prompts"},
    "no_advantage_mask": _NO_ADVANTAGE_MASK,
    "no_entropy_mask": _NO_ENTROPY_MASK,
    "random_masks": {"algorithm.mask_by": "random"},
    "entropy_masks": {"algorithm.mask_by": "entropy"},
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
    "min_value": {"algorithm.value_aggregation": "min"},
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
    "vapo": {**_SYMMETRIC, **_VAPO},
    "sp3o_symmetric": {**_SYMMETRIC, **_SP3O},
    "sp3o_mini": {**_ONE_MINI_CRITIC, **_SP3O},
    "easy_ppo_symmetric": {**_SYMMETRIC, **_EASY_PPO},
    "easy_ppo_mini": {**_ONE_MINI_CRITIC, **_EASY_PPO},
    # The options of docs/critics.md, one each; a head of bins needs its scale from the rollout.
    "asyppo_head_init": _HEAD_INIT,
    "asyppo_group_anchor": {"value.anchor": "group"},
    "asyppo_shrunken_anchor": {"value.anchor": "shrunken_group"},
    "asyppo_atan": {"value.head": "atan"},
    "asyppo_bce": _BCE,
    "asyppo_two_hot": {**_HEAD_INIT, "value.head": "bins", "value.loss": "two_hot"},
    "asyppo_hl_gauss": {**_HEAD_INIT, "value.head": "bins", "value.loss": "hl_gauss"},
    "asyppo_reference": {"value.reference_answer": "{answer}\n"},
    "asyppo_sparse": _SP3O,
    "asyppo_noise_weights": {"value.noise_weights": True},
    "asyppo_value_clip": {"value.clip_eps": 0.2},
    "asyppo_frozen_attention": {"value.frozen": "attention"},
    "asyppo_critic_epochs": _FOUR_EPOCHS,
    "asyppo_returns_lambda": {"algorithm.gae_lambda": 0.95, "algorithm.returns_lambda": 1.0},
    "asyppo_adaptive_lambda": {"algorithm.length_adaptive_lambda": 0.4},
    "asyppo_gate": {"algorithm.explained_variance_gate": True},
    "asyppo_overlong_filter": {"algorithm.overlong_filter": True},
    "asyppo_better_critics": {**_HEAD_INIT, **_BCE, **_FOUR_EPOCHS},
}
ACTOR_RATE, CRITIC_RATE = "actor_optimizer.learning_rate", "critic_optimizer.learning_rate"
# (actor's, critics'): the base config's, and one rate changed at a time.
RATES = ((1e-4, 1e-3), (3e-5, 1e-3), (3e-4, 1e-3), (1e-3, 1e-3), (1e-4, 3e-4), (1e-4, 3e-3))
TUNED_METHODS = (
    *("asyppo", "symmetric_ppo", "grpo"),
    *("rloo", "dr_grpo", "reinforce_plus_plus", "dapo"),
)
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
TUNED: dict[str, Settings] = {
    name: {ACTOR_RATE: 3e-4}
    for name in ("symmetric_ppo", "grpo", "rloo", "dr_grpo", "reinforce_plus_plus", "dapo")
}
