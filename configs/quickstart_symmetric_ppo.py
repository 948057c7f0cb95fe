"""The quickstart with classic PPO: one critic, as large as the actor, and no masks.

    python -m experiments.train --config=configs/quickstart_symmetric_ppo.py --workdir=runs/ppo

Hardware: any two CPU cores, a few minutes. A single critic (K = 1) cannot disagree, so the masks of
AsyPPO (arXiv 2510.01656) keep every token: this is PPO, computed by the same functions.
"""

from asyppo_jax.config import Settings
from configs import quickstart


def get_config() -> Settings:
    config = quickstart.get_config()
    config.algorithm.num_critics = 1
    config.critic.num_layers = None  # all of the actor's layers
    return config
