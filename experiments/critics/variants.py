"""The critics that are compared: each a name and the settings that it changes."""

from typing import Any

_ROLLOUT = {"value.head_init": "rollout"}
_BCE = {**_ROLLOUT, "value.head": "sigmoid", "value.loss": "bce"}
_ANCHOR = {**_ROLLOUT, "value.anchor": "shrunken_group"}
_FOUR = {"algorithm.critic_epochs": 4}
_REFERENCE = {"value.reference_answer": "{answer}\n"}

VARIANTS: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    # One option each.
    "4 epochs": _FOUR,
    "head from rollout": _ROLLOUT,
    "bce": {"value.head": "sigmoid", "value.loss": "bce"},
    "hl_gauss": {"value.head": "bins", "value.loss": "hl_gauss"},
    "group anchor": {"value.anchor": "group"},
    "shrunken anchor": {"value.anchor": "shrunken_group"},
    # With the head from the rollout.
    "head, group anchor": {**_ROLLOUT, "value.anchor": "group"},
    "head, shrunken anchor": _ANCHOR,
    "head, atan": {**_ROLLOUT, "value.head": "atan"},
    "head, bce": _BCE,
    "head, shrunken anchor, bce": {**_ANCHOR, **_BCE},
    "head, shrunken anchor, bce, lr x 1/3": {
        **_ANCHOR,
        **_BCE,
        "critic_optimizer.learning_rate": 1 / 3,
    },
    "head, bce, reference": {**_BCE, **_REFERENCE},
    # With four epochs as well.
    "head, 4 epochs": {**_ROLLOUT, **_FOUR},
    "head, 8 epochs": {**_ROLLOUT, "algorithm.critic_epochs": 8},
    "head, 4 epochs, lr x 1/3": {**_ROLLOUT, **_FOUR, "critic_optimizer.learning_rate": 1 / 3},
    "head, 4 epochs, bce": {**_BCE, **_FOUR},
    "head, 4 epochs, two_hot": {
        **_ROLLOUT,
        **_FOUR,
        "value.head": "bins",
        "value.loss": "two_hot",
    },
    "head, 4 epochs, hl_gauss": {
        **_ROLLOUT,
        **_FOUR,
        "value.head": "bins",
        "value.loss": "hl_gauss",
    },
    "head, 4 epochs, noise weights": {**_ROLLOUT, **_FOUR, "value.noise_weights": True},
    "head, 4 epochs, 3 positions": {**_ROLLOUT, **_FOUR, "value.positions": (0.3, 0.6, 0.9)},
    "head, 4 epochs, clip 0.2": {**_ROLLOUT, **_FOUR, "value.clip_eps": 0.2},
    "head, 4 epochs, frozen attention": {**_ROLLOUT, **_FOUR, "value.frozen": "attention"},
    "head, shrunken anchor, bce, 4 epochs": {**_ANCHOR, **_BCE, **_FOUR},
    "head, 8 epochs, bce": {**_BCE, "algorithm.critic_epochs": 8},
    # As deep as the actor, for comparison.
    "head, 4 epochs, bce, all layers": {**_BCE, **_FOUR, "critic.num_layers": None},
    "head, 4 epochs, bce, reference": {**_BCE, **_FOUR, **_REFERENCE},
    # K = 4.
    "K = 4": {"algorithm.num_critics": 4},
    "K = 4, head, 4 epochs, bce": {"algorithm.num_critics": 4, **_BCE, **_FOUR},
}
# Settings whose value is a factor of that in the config file.
FACTORS = ("critic_optimizer.learning_rate",)
