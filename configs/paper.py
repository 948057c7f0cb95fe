"""What the runs of the paper (arXiv 2510.01656) share: Qwen3 on DeepMath, 1024 × 8192 tokens.

Not a run of its own; the files beside it are. From the paper: 1,024 responses a step in groups of
32, 8,192 tokens, temperature and top-p 0.99, masks at 20%, four epochs, 5,000 problems of
DeepMath-103K, the system prompt. Ours where the paper is silent: see `config/settings.py`. The
files named by ASYPPO_DATA are deepmath_5k.jsonl and math500.jsonl {problem, answer}.
"""

import os
from pathlib import Path

from asyppo_jax.config import Settings, default_config

DATA = os.environ.get("ASYPPO_DATA", "data")
ARCHITECTURES = Path(__file__).parent / "architectures"


def paper_config(actor: str, critic: str | None, num_critics: int = 2) -> Settings:
    """AsyPPO with an actor "4B", "8B" or "14B" and critics of a size; GRPO without critics."""
    config = default_config()
    config.num_steps = 200
    _network(config.actor, actor)
    if critic is None:
        config.algorithm.advantages = "grpo"
        config.algorithm.num_critics = 0
        config.algorithm.entropy_coef = 0.0
    else:
        _network(config.critic, critic)
        config.algorithm.num_critics = num_critics
    config.algorithm.old_log_probs = "recompute"  # bfloat16: sampler and learner round apart

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
    """Classic PPO of it: one critic, which is as large as the actor, and no masks."""
    config.algorithm.num_critics = 1
    config.algorithm.advantage_mask_fraction = 0.0
    config.algorithm.entropy_mask_fraction = 0.0
    return config


def _network(network: Settings, size: str) -> None:
    network.path = f"Qwen/Qwen3-{size}-Base"
    network.architecture = str(ARCHITECTURES / f"qwen3-{size.lower()}.json")
    network.dtype = "bfloat16"
