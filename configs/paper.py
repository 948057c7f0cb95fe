"""Settings shared by the configs of the paper's runs (arXiv 2510.01656): Qwen3 on DeepMath.

This file is not a run; the qwen3_*.py files are. From the paper: 1,024 responses per step in groups
of 32, up to 8,192 tokens each, temperature and top-p 0.99, masks at 20%, four epochs, 5,000
problems of DeepMath-103K, the system prompt. For what the paper does not state, see the comments in
`config/settings.py`. $ASYPPO_DATA is the directory of deepmath_5k.jsonl and math500.jsonl, with the
fields problem and answer.
"""

import os
from pathlib import Path

from asyppo_jax.config import Settings, default_config

DATA = os.environ.get("ASYPPO_DATA", "data")
ARCHITECTURES = Path(__file__).parent / "architectures"


def paper_config(actor: str, critic: str | None, num_critics: int = 2) -> Settings:
    """AsyPPO with an actor ("4B", "8B" or "14B") and critics of the given sizes; None: GRPO."""
    config = default_config()
    config.algorithm.advantage_mask_fraction = 0.2
    config.num_steps = 200
    _network(config.actor, actor)
    if critic is None:
        config.algorithm.advantages = "grpo"
        config.algorithm.num_critics = 0
        config.algorithm.advantage_whitening = "none"  # normalized in each group instead
        config.algorithm.entropy_coef = 0.0
    else:
        _network(config.critic, critic)
        config.algorithm.num_critics = num_critics
    config.algorithm.old_log_probs = "recompute"  # sampler and learner differ in bfloat16 rounding

    config.train_data.path = f"{DATA}/deepmath_5k.jsonl"
    config.eval_data.path = f"{DATA}/math500.jsonl"
    config.prompt.max_length = 1024
    config.sampling.slots = 256
    config.batching.actor_minibatch_size = 256
    config.batching.critic_minibatch_size = 256
    config.batching.microbatch_size = 2
    config.batching.critic_microbatch_size = 2
    config.mesh.model = 8
    return config


def symmetric(config: Settings) -> Settings:
    """The config changed to classic PPO: one critic, and no masks."""
    config.algorithm.num_critics = 1
    config.algorithm.advantage_mask_fraction = 0.0
    config.algorithm.entropy_mask_fraction = 0.0
    return config


def _network(network: Settings, size: str) -> None:
    network.path = f"Qwen/Qwen3-{size}-Base"
    network.architecture = str(ARCHITECTURES / f"qwen3-{size.lower()}.json")
    network.dtype = "bfloat16"
