"""The quickstart with GRPO (arXiv 2402.03300): no critics, advantages normalised in each group.

    python -m experiments.train --config=configs/quickstart_grpo.py --workdir=runs/grpo

Hardware: any two CPU cores, a few minutes.
"""

from asyppo_jax.config import Settings
from configs import quickstart


def get_config() -> Settings:
    config = quickstart.get_config()
    config.algorithm.advantages = "grpo"
    config.algorithm.num_critics = 0
    config.algorithm.advantage_whitening = "none"  # advantages are normalised per group instead
    return config
