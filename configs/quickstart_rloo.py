"""The quickstart with RLOO (arXiv 2402.14740): no critics, each answer against the others.

    python -m experiments.train --config=configs/quickstart_rloo.py --workdir=runs/rloo

A_i = r_i − 1/(G−1) Σ_{j≠i} r_j, not whitened. The paper takes one REINFORCE step on whole answers
and puts a KL penalty into the reward; here PPO's clipped loss, as in the other quickstarts, and no
KL. Hardware: any two CPU cores, a few minutes.
"""

from asyppo_jax.config import Settings
from configs import quickstart


def get_config() -> Settings:
    config = quickstart.get_config()
    config.algorithm.advantages = "rloo"
    config.algorithm.num_critics = 0
    config.algorithm.advantage_whitening = "none"  # whitened, it would be REINFORCE++-baseline
    return config
