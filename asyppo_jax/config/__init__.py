"""A run's settings: every field and its default, checks, and the errors that users can fix."""

from asyppo_jax.config.errors import ConfigError as ConfigError
from asyppo_jax.config.errors import UserError as UserError
from asyppo_jax.config.reading import Settings as Settings
from asyppo_jax.config.reading import default_config as default_config
from asyppo_jax.config.reading import from_config_dict as from_config_dict
from asyppo_jax.config.reading import from_dict as from_dict
from asyppo_jax.config.settings import AlgorithmConfig as AlgorithmConfig
from asyppo_jax.config.settings import BatchingConfig as BatchingConfig
from asyppo_jax.config.settings import CheckpointConfig as CheckpointConfig
from asyppo_jax.config.settings import Config as Config
from asyppo_jax.config.settings import DataConfig as DataConfig
from asyppo_jax.config.settings import EvaluationConfig as EvaluationConfig
from asyppo_jax.config.settings import LogConfig as LogConfig
from asyppo_jax.config.settings import MeshConfig as MeshConfig
from asyppo_jax.config.settings import NetworkConfig as NetworkConfig
from asyppo_jax.config.settings import OptimizerConfig as OptimizerConfig
from asyppo_jax.config.settings import PromptConfig as PromptConfig
from asyppo_jax.config.settings import RewardConfig as RewardConfig
from asyppo_jax.config.settings import SamplingConfig as SamplingConfig
from asyppo_jax.config.settings import Truncation as Truncation
from asyppo_jax.config.value_settings import ValueConfig as ValueConfig
