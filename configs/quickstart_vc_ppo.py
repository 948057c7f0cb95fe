"""The quickstart with VC-PPO (arXiv 2503.01491): a large critic with a λ of its own, pretrained.

    python -m experiments.train --config=configs/quickstart_vc_ppo.py --workdir=runs/vc_ppo

A_t is GAE with λ = 0.95, and the critic fits the return with λ = 1. Its value pretraining is the
warm-up, with the actor fixed.
"""

from asyppo_jax.config import Settings
from configs import quickstart_symmetric_ppo


def get_config() -> Settings:
    config = quickstart_symmetric_ppo.get_config()
    config.algorithm.gae_lambda = 0.95
    config.algorithm.returns_lambda = 1.0
    config.algorithm.critic_warmup_steps = 5
    return config
