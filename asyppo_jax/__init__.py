"""AsyPPO in pure JAX: a large actor, and an ensemble of small critics (arXiv 2510.01656).

    from asyppo_jax import load_actor, load_critics                          # networks to apply
    from asyppo_jax import gae, disagreement_masks, critic_shards, asyppo_loss  # pure functions
    from asyppo_jax import default_config, from_config_dict                     # a run's settings
    from asyppo_jax.train import train                                          # and the run

A name is imported when it is first used: `import asyppo_jax` by itself imports nothing, not even
JAX, and touches no device.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; `_MODULES` says the same at run time
    from asyppo_jax.algorithm.experience import make_experience as make_experience
    from asyppo_jax.config import Config as Config
    from asyppo_jax.config import UserError as UserError
    from asyppo_jax.config import default_config as default_config
    from asyppo_jax.config import from_config_dict as from_config_dict
    from asyppo_jax.ops.ensemble import critic_shards as critic_shards
    from asyppo_jax.ops.ensemble import disagreement_masks as disagreement_masks
    from asyppo_jax.ops.ensemble import value_mean_and_std as value_mean_and_std
    from asyppo_jax.ops.logits import log_probs_and_entropy as log_probs_and_entropy
    from asyppo_jax.ops.losses import asyppo_loss as asyppo_loss
    from asyppo_jax.ops.losses import clipped_surrogate as clipped_surrogate
    from asyppo_jax.ops.losses import squared_error as squared_error
    from asyppo_jax.ops.masked import explained_variance as explained_variance
    from asyppo_jax.ops.masked import sequence_mean_sum as sequence_mean_sum
    from asyppo_jax.ops.masked import token_sum as token_sum
    from asyppo_jax.ops.returns import gae as gae
    from asyppo_jax.ops.returns import group_advantages as group_advantages
    from asyppo_jax.ops.returns import lambda_returns as lambda_returns
    from asyppo_jax.ops.returns import monte_carlo_returns as monte_carlo_returns
    from asyppo_jax.ops.returns import place_reward as place_reward
    from asyppo_jax.ops.returns import whiten as whiten
    from asyppo_jax.runs.load import load_actor as load_actor
    from asyppo_jax.runs.load import load_critics as load_critics
    from asyppo_jax.sampling.loaded import LoadedActor as LoadedActor
    from asyppo_jax.sampling.loaded import LoadedCritics as LoadedCritics
    from asyppo_jax.types import Experience as Experience
    from asyppo_jax.types import Rollout as Rollout
    from asyppo_jax.types import TrainState as TrainState

__version__ = "0.1.0"

_MODULES = {
    "algorithm.experience": "make_experience",
    "config": "Config UserError default_config from_config_dict",
    "ops.ensemble": "critic_shards disagreement_masks value_mean_and_std",
    "ops.logits": "log_probs_and_entropy",
    "ops.losses": "asyppo_loss clipped_surrogate squared_error",
    "ops.masked": "explained_variance sequence_mean_sum token_sum",
    "ops.returns": "gae group_advantages lambda_returns monte_carlo_returns place_reward whiten",
    "runs.load": "LoadedActor LoadedCritics load_actor load_critics",
    "types": "Experience Rollout TrainState",
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
