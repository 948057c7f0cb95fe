"""AsyPPO in pure JAX: a large actor, and an ensemble of small critics (arXiv 2510.01656).

    from asyppo_jax import gae, disagreement_masks, critic_shards, asyppo_loss  # pure functions
    from asyppo_jax import default_config, from_config_dict                     # a run's settings
    from asyppo_jax import train                                                # a run
    from asyppo_jax import load_actor, load_critics                             # trained networks

A name is imported when it is first used: `import asyppo_jax` itself imports neither JAX nor any
other package, and touches no device.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; `_MODULES` has the same names at run time
    from asyppo_jax.algorithm.batching.layout import sequence_mean as sequence_mean
    from asyppo_jax.algorithm.batching.rows import loss_rows as loss_rows
    from asyppo_jax.algorithm.experience import make_experience as make_experience
    from asyppo_jax.config import Config as Config
    from asyppo_jax.config import PromptConfig as PromptConfig
    from asyppo_jax.config import UserError as UserError
    from asyppo_jax.config import default_config as default_config
    from asyppo_jax.config import from_config_dict as from_config_dict
    from asyppo_jax.evaluation.benchmark import evaluate_benchmark as evaluate_benchmark
    from asyppo_jax.evaluation.statistics import average_at_k as average_at_k
    from asyppo_jax.evaluation.statistics import average_interval as average_interval
    from asyppo_jax.evaluation.statistics import pass_at_k as pass_at_k
    from asyppo_jax.evaluation.statistics import powers_of_two as powers_of_two
    from asyppo_jax.evaluation.true_values import States as States
    from asyppo_jax.evaluation.true_values import sample_states as sample_states
    from asyppo_jax.evaluation.value_errors import PositionErrors as PositionErrors
    from asyppo_jax.evaluation.value_errors import value_errors as value_errors
    from asyppo_jax.evaluation.value_errors import values_at as values_at
    from asyppo_jax.ops.aggregation import length_normalizer as length_normalizer
    from asyppo_jax.ops.aggregation import loss_denominator as loss_denominator
    from asyppo_jax.ops.baselines import group_mean_of_others as group_mean_of_others
    from asyppo_jax.ops.baselines import shrunken_group_mean as shrunken_group_mean
    from asyppo_jax.ops.ensemble import critic_shards as critic_shards
    from asyppo_jax.ops.ensemble import disagreement_masks as disagreement_masks
    from asyppo_jax.ops.ensemble import value_mean_and_std as value_mean_and_std
    from asyppo_jax.ops.logits import log_probs_and_entropy as log_probs_and_entropy
    from asyppo_jax.ops.losses import asyppo_loss as asyppo_loss
    from asyppo_jax.ops.losses import clipped_surrogate as clipped_surrogate
    from asyppo_jax.ops.losses import kl_penalty as kl_penalty
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
    from asyppo_jax.planning.plan import plan as plan
    from asyppo_jax.runs.checkpoint import is_run as is_run
    from asyppo_jax.runs.load import load_actor as load_actor
    from asyppo_jax.runs.load import load_critics as load_critics
    from asyppo_jax.runs.metrics import read_metrics as read_metrics
    from asyppo_jax.runs.rollout_files import read_rollout_file as read_rollout_file
    from asyppo_jax.runs.rollout_files import token_texts as token_texts
    from asyppo_jax.sampling.loaded import LoadedActor as LoadedActor
    from asyppo_jax.sampling.loaded import LoadedCritics as LoadedCritics
    from asyppo_jax.sampling.sampler import read_answers as read_answers
    from asyppo_jax.sampling.sampler import training_options as training_options
    from asyppo_jax.tasks.benchmarks import BenchmarkSettings as BenchmarkSettings
    from asyppo_jax.tasks.benchmarks import find_benchmark as find_benchmark
    from asyppo_jax.tasks.benchmarks import held_out_benchmark as held_out_benchmark
    from asyppo_jax.tasks.benchmarks import own_benchmark as own_benchmark
    from asyppo_jax.tasks.prompts import make_prompts as make_prompts
    from asyppo_jax.tasks.records import load_records as load_records
    from asyppo_jax.tasks.tokenizers import pad_token_id as pad_token_id
    from asyppo_jax.tasks.tokenizers import stop_token_ids as stop_token_ids
    from asyppo_jax.train import train as train
    from asyppo_jax.types import Experience as Experience
    from asyppo_jax.types import Rollout as Rollout
    from asyppo_jax.types import TrainState as TrainState

__version__ = "0.1.0"

_MODULES = {
    "algorithm.batching.layout": "sequence_mean",
    "algorithm.batching.rows": "loss_rows",
    "algorithm.experience": "make_experience",
    "config": "Config PromptConfig UserError default_config from_config_dict",
    "evaluation.benchmark": "evaluate_benchmark",
    "tasks.benchmarks": "BenchmarkSettings find_benchmark held_out_benchmark own_benchmark",
    "evaluation.statistics": "average_at_k average_interval pass_at_k powers_of_two",
    "evaluation.true_values": "States sample_states",
    "evaluation.value_errors": "PositionErrors value_errors values_at",
    "ops.aggregation": "length_normalizer loss_denominator",
    "ops.baselines": "group_mean_of_others shrunken_group_mean",
    "ops.ensemble": "critic_shards disagreement_masks value_mean_and_std",
    "ops.logits": "log_probs_and_entropy",
    "ops.losses": "asyppo_loss clipped_surrogate kl_penalty squared_error",
    "ops.masked": "explained_variance sequence_mean_sum token_sum",
    "ops.returns": "gae group_advantages lambda_returns monte_carlo_returns place_reward whiten",
    "planning.plan": "plan",
    "runs.checkpoint": "is_run",
    "runs.load": "load_actor load_critics",
    "runs.metrics": "read_metrics",
    "runs.rollout_files": "read_rollout_file token_texts",
    "sampling.loaded": "LoadedActor LoadedCritics",
    "sampling.sampler": "read_answers training_options",
    "tasks.prompts": "make_prompts",
    "tasks.records": "load_records",
    "tasks.tokenizers": "pad_token_id stop_token_ids",
    "types": "Experience Rollout TrainState",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}
# Modules at paths that earlier documents showed: each gives the public names of these modules.
_MOVED = {
    "checkpoint": "runs.checkpoint",
    "metrics": "runs.metrics runs.progress",
    "prompts": "tasks.prompts tasks.tokenizers",
    "records": "tasks.records",
    "rollout_files": "runs.rollout_files",
    "rollouts": "sampling.rollouts sampling.sampler",
    "statistics": "evaluation.statistics",
}


def __getattr__(name: str) -> Any:
    if name in ("rewards", "train"):  # modules; a call of `train` calls its function
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next use finds it without this function
    return value


# For `help`, completion and `import *`.
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `_MOVED` at their earlier paths."""

    def find_spec(
        self,
        fullname: str,
        path: Any,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != __name__ or name not in _MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: types.ModuleType) -> None:
        earlier = module.__name__.removeprefix(f"{__name__}.")
        for current in _MOVED[earlier].split():
            names = vars(importlib.import_module(f"{__name__}.{current}"))
            vars(module).update({k: v for k, v in names.items() if not k.startswith("_")})


sys.meta_path.append(_MovedModules())
